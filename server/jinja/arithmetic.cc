// See operators.h: numbers as Python's, with integers of 64 bits (one that would not fit is an error, where
// Python's grow), and + * % of texts and lists.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/jinja/format.h"
#include "server/jinja/operators.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

Value Fail(const char* why, Budget* budget) {
  budget->Fail(why);
  return {};
}
constexpr const char* kTooLarge = "an integer has more than 64 bits";
constexpr const char* kByZero = "division by zero";

// Exact while it fits; x ** y by squaring.
Value IntegerPower(int64_t x, int64_t y, Budget* budget) {
  int64_t result = 1;
  for (int64_t base = x; y > 0; y >>= 1) {
    if ((y & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Fail(kTooLarge, budget);
    if (y > 1 && __builtin_mul_overflow(base, base, &base)) return Fail(kTooLarge, budget);
  }
  return Value(result);
}

Value OfReals(Operator op, double x, double y, Budget* budget) {
  switch (op) {
    case Operator::kAdd: return Value(x + y);
    case Operator::kSubtract: return Value(x - y);
    case Operator::kMultiply: return Value(x * y);
    case Operator::kDivide: return y == 0 ? Fail(kByZero, budget) : Value(x / y);
    case Operator::kPower: {
      if (x == 0 && y < 0) return Fail("0.0 cannot be raised to a negative power", budget);
      if (x < 0 && std::isfinite(x) && std::isfinite(y) && y != std::floor(y))
        return Fail("complex numbers are not supported", budget);
      const double power = std::pow(x, y);
      if (std::isinf(power) && std::isfinite(x) && std::isfinite(y))
        return Fail("Numerical result out of range", budget);
      return Value(power);
    }
    default: break;
  }
  if (y == 0) return Fail(kByZero, budget);
  double remainder = std::fmod(x, y);  // Python's has the sign of y
  double quotient = (x - remainder) / y;
  if (remainder != 0) {
    if ((y < 0) != (remainder < 0)) {
      remainder += y;
      quotient -= 1;
    }
  } else {
    remainder = std::copysign(0.0, y);
  }
  if (op == Operator::kModulo) return Value(remainder);
  if (quotient == 0) return Value(std::copysign(0.0, x / y));
  const double whole = std::floor(quotient);
  return Value(quotient - whole > 0.5 ? whole + 1 : whole);
}

Value OfIntegers(Operator op, int64_t x, int64_t y, Budget* budget) {
  int64_t r = 0;
  bool fits = true;
  switch (op) {
    case Operator::kAdd: fits = !__builtin_add_overflow(x, y, &r); break;
    case Operator::kSubtract: fits = !__builtin_sub_overflow(x, y, &r); break;
    case Operator::kMultiply: fits = !__builtin_mul_overflow(x, y, &r); break;
    case Operator::kDivide: {
      if (y == 0) return Fail(kByZero, budget);
      // The quotient of the exact integers, as Python's: they may not fit a double.
      return Value(static_cast<double>(static_cast<long double>(x) / static_cast<long double>(y)));
    }
    case Operator::kPower:
      if (y < 0) return OfReals(op, static_cast<double>(x), static_cast<double>(y), budget);
      return IntegerPower(x, y, budget);
    default: {
      if (y == 0) return Fail("integer division or modulo by zero", budget);
      if (y == -1) {
        if (op == Operator::kModulo) return Value(int64_t{0});
        fits = !__builtin_sub_overflow(int64_t{0}, x, &r);
        break;
      }
      const int64_t remainder = x % y;
      const bool adjust = remainder != 0 && (remainder < 0) != (y < 0);
      r = op == Operator::kModulo ? remainder + (adjust ? y : 0) : x / y - (adjust ? 1 : 0);
    }
  }
  return fits ? Value(r) : Fail(kTooLarge, budget);
}

Value Joined(const Value& a, const Value& b, Budget* budget) {
  TextBuilder out(budget);
  const bool markup = a.is_markup() || b.is_markup();
  if (!markup) out.Reserve(a.text()->size() + b.text()->size());
  for (const Value* v : {&a, &b}) {
    if (markup && !v->is_markup()) {
      AppendEscaped(*v->text(), &out);
    } else {
      out.Append(*v->text());
    }
  }
  return markup ? out.FinishMarkup() : out.Finish();
}

Value RepeatedText(const Value& of, int64_t count, Budget* budget) {
  const std::string& text = *of.text();
  TextBuilder out(budget);
  if (count > 0 && !text.empty()) {
    int64_t size = 0;
    if (__builtin_mul_overflow(count, static_cast<int64_t>(text.size()), &size)) size = INT64_MAX;
    if (!budget->StepBytes(size)) return {};
    out.Reserve(static_cast<size_t>(size));
  }
  for (int64_t i = 0; i < count && !text.empty() && budget->ok(); ++i) out.Append(text);
  return of.is_markup() ? out.FinishMarkup() : out.Finish();
}

Value RepeatedItems(const Value& of, int64_t count, Budget* budget) {
  ListBuilder out(budget);
  for (int64_t i = 0; i < count && !of.items()->empty() && budget->ok(); ++i) {
    for (const Value& item : *of.items()) out.Append(item);
  }
  return of.is_tuple() ? out.FinishTuple() : out.Finish();
}

// What is not of two numbers; undefined when there is no such operation.
bool OfSequences(Operator op, const Value& a, const Value& b, Budget* budget, Value* result) {
  if (op == Operator::kAdd && a.text() != nullptr && b.text() != nullptr) {
    *result = Joined(a, b, budget);
    return true;
  }
  if (op == Operator::kAdd && a.items() != nullptr && a.kind() == b.kind()) {
    ListBuilder out(budget);
    for (const Value* v : {&a, &b}) {
      for (const Value& item : *v->items()) out.Append(item);
    }
    *result = a.is_tuple() ? out.FinishTuple() : out.Finish();
    return true;
  }
  if (op == Operator::kMultiply) {
    const Value &of = a.is_number() ? b : a, &count = a.is_number() ? a : b;
    if (!count.AsInteger().has_value()) return false;
    if (of.text() != nullptr) *result = RepeatedText(of, *count.AsInteger(), budget);
    if (of.items() != nullptr) *result = RepeatedItems(of, *count.AsInteger(), budget);
    return of.text() != nullptr || of.items() != nullptr;
  }
  if (op == Operator::kModulo && a.text() != nullptr) {
    *result = FormatPercent(a, b, budget);
    return true;
  }
  return false;
}

}  // namespace

Value Arithmetic(Operator op, const Value& a, const Value& b, Budget* budget) {
  if (!budget->Step()) return {};
  if (a.is_number() && b.is_number()) {
    if (a.real() != nullptr || b.real() != nullptr) return OfReals(op, a.AsReal(), b.AsReal(), budget);
    return OfIntegers(op, *a.AsInteger(), *b.AsInteger(), budget);
  }
  Value result;
  const bool formats = op == Operator::kModulo && a.text() != nullptr;
  if (a.is_defined() && (b.is_defined() || formats) && OfSequences(op, a, b, budget, &result)) return result;
  for (const Value* v : {&a, &b}) {
    if (!v->is_defined()) {
      budget->Fail(v->UndefinedMessage());
      return {};
    }
  }
  budget->Fail(absl::StrCat("unsupported operand type(s) for ", View(NameOf(op)), ": '", TypeName(a),
                            "' and '", TypeName(b), "'"));
  return {};
}

Value Negated(const Value& v, bool plus, Budget* budget) {
  if (v.real() != nullptr) return Value(plus ? *v.real() : -*v.real());
  if (const auto x = v.AsInteger()) {
    if (plus) return Value(*x);
    return *x == INT64_MIN ? Fail(kTooLarge, budget) : Value(-*x);
  }
  budget->Fail(v.is_defined()
                   ? absl::StrCat("bad operand type for unary ", plus ? "+" : "-", ": '", TypeName(v), "'")
                   : v.UndefinedMessage());
  return {};
}

}  // namespace sessa::jinja
