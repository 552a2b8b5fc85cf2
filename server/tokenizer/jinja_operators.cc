// See jinja_builtins.h: operators, members, slices and range.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/jinja_builtins.h"

namespace sessa::jinja {
namespace {

bool IsOrder(std::string_view op) { return op == "<" || op == ">" || op == "<=" || op == ">="; }
template <typename T>
Value Order(std::string_view op, const T& a, const T& b) {
  return Value(op == "<" ? a < b : op == ">" ? a > b : op == "<=" ? a <= b : a >= b);
}

Value Fail(std::string_view op, const char* why, Budget* budget) {
  budget->Fail(absl::StrCat("'", absl::string_view(op.data(), op.size()), "' ", why));
  return {};
}

Value OfIntegers(std::string_view op, int64_t x, int64_t y, Budget* budget) {
  if (IsOrder(op)) return Order(op, x, y);
  int64_t r = 0;
  if (op == "+") return __builtin_add_overflow(x, y, &r) ? Fail(op, "overflows", budget) : Value(r);
  if (op == "-") return __builtin_sub_overflow(x, y, &r) ? Fail(op, "overflows", budget) : Value(r);
  if (op == "*") return __builtin_mul_overflow(x, y, &r) ? Fail(op, "overflows", budget) : Value(r);
  if (op != "%" && op != "//") return Fail(op, "of these kinds of values is not supported", budget);
  if (y == 0 || (x == INT64_MIN && y == -1)) return Fail(op, "divides by zero", budget);
  const int64_t remainder = x % y;  // Python's has the sign of y
  const int64_t floored = remainder != 0 && (remainder < 0) != (y < 0) ? remainder + y : remainder;
  return Value(op == "%" ? floored : (x - floored) / y);
}

Value OfNumbers(std::string_view op, const Value& a, const Value& b, Budget* budget) {
  if (a.integer() != nullptr && b.integer() != nullptr && op != "/")
    return OfIntegers(op, *a.integer(), *b.integer(), budget);
  if (!a.is_number() || !b.is_number()) return Fail(op, "of these kinds of values is not supported", budget);
  const double x = a.AsReal(), y = b.AsReal();
  if (IsOrder(op)) return Order(op, x, y);
  if (op == "+") return Value(x + y);
  if (op == "-") return Value(x - y);
  if (op == "*") return Value(x * y);
  if (op == "/" && y != 0) return Value(x / y);
  return Fail(op, "of these numbers is not supported", budget);
}

bool BeginsCharacter(char c) { return (c & 0xc0) != 0x80; }

// The characters begin, begin + step, ... before end of a string, by their bytes. A first walk finds where
// each begins.
Value PickCharacters(const std::string& text, int64_t begin, int64_t end, int64_t step, Budget* budget) {
  const ByteHold hold(budget, static_cast<int64_t>((text.size() + 1) * sizeof(uint32_t)));
  if (!budget->Step(static_cast<int64_t>(text.size()) / 8)) return {};
  std::vector<uint32_t> starts;  // no text has 4 GiB
  starts.reserve(text.size() + 1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (BeginsCharacter(text[i])) starts.push_back(static_cast<uint32_t>(i));
  }
  starts.push_back(static_cast<uint32_t>(text.size()));
  TextBuilder out(budget);
  for (int64_t i = begin; budget->ok() && (step > 0 ? i < end : i > end); i += step)
    out.Append(std::string_view(text).substr(starts[i], starts[i + 1] - starts[i]));
  return out.Finish();
}

}  // namespace

int64_t Length(const Value& v, Budget* budget) {
  if (v.list() != nullptr) return static_cast<int64_t>(v.list()->size());
  if (v.dict() != nullptr) return static_cast<int64_t>(v.dict()->size());
  budget->StepBytes(static_cast<int64_t>(v.text()->size()));
  return std::count_if(v.text()->begin(), v.text()->end(), BeginsCharacter);
}

Value Binary(std::string_view op, const Value& a, const Value& b, Budget* budget) {
  if (op == "==") return Value(Equal(a, b, budget));
  if (op == "!=") return Value(!Equal(a, b, budget));
  if (op == "in" || op == "not in") return Value(Contains(b, a, budget) == (op == "in"));
  if (op == "~" || (op == "+" && a.text() != nullptr && b.text() != nullptr)) {
    TextBuilder out(budget);
    if (a.text() != nullptr && b.text() != nullptr) out.Reserve(a.text()->size() + b.text()->size());
    AppendText(a, budget, &out);
    AppendText(b, budget, &out);
    return out.Finish();
  }
  if (!a.is_defined() || !b.is_defined()) return Fail(op, "with something undefined", budget);
  if (a.text() != nullptr && b.text() != nullptr && IsOrder(op)) {
    if (!budget->StepBytes(static_cast<int64_t>(std::min(a.text()->size(), b.text()->size())))) return {};
    return Order(op, *a.text(), *b.text());
  }
  if (op == "+" && a.list() != nullptr && b.list() != nullptr) {
    ListBuilder out(budget);
    for (const List* list : {a.list(), b.list()}) {
      for (size_t i = 0; i < list->size() && budget->ok(); ++i) out.Append((*list)[i]);
    }
    return out.Finish();
  }
  return OfNumbers(op, a, b, budget);
}

Value Negated(std::string_view op, const Value& v, Budget* budget) {
  if (v.integer() != nullptr && *v.integer() != INT64_MIN)
    return Value(op == "-" ? -*v.integer() : *v.integer());
  if (v.real() != nullptr) return Value(op == "-" ? -*v.real() : *v.real());
  return Fail(op, "of something that is no number", budget);
}

Value Member(const Value& of, const Value& key, Budget* budget) {
  if (!of.is_defined()) {
    const Value name = ToText(key, budget);
    if (name.text() != nullptr)
      budget->Fail(absl::StrCat("a member '", *name.text(), "' of something undefined"));
    return {};
  }
  if (of.dict() != nullptr && key.text() != nullptr) {
    budget->Step(static_cast<int64_t>(of.dict()->size()) / 4);
    const Value* found = Find(*of.dict(), *key.text());
    return found == nullptr ? Value() : *found;
  }
  if (key.integer() == nullptr || (of.list() == nullptr && of.text() == nullptr)) return {};
  const int64_t n = Length(of, budget);
  const int64_t i = *key.integer() < 0 ? *key.integer() + n : *key.integer();
  if (i < 0 || i >= n) return {};
  return of.list() != nullptr ? (*of.list())[i] : PickCharacters(*of.text(), i, i + 1, 1, budget);
}

// As Python's: negative bounds count from the end, and what is out of range is cut.
Value Slice(const Value& of, const Value (&bounds)[3], Budget* budget) {
  if (of.list() == nullptr && of.text() == nullptr) {
    budget->Fail("a slice of something that is neither list nor string");
    return {};
  }
  for (const Value& bound : bounds) {
    if (!bound.is_defined() || bound.is_none() || bound.integer() != nullptr) continue;
    budget->Fail("a bound of a slice is no integer");
    return {};
  }
  const int64_t n = Length(of, budget);
  // A step beyond the whole is as good as one that just leaves it, and does not overflow.
  const int64_t step = bounds[2].integer() == nullptr ? 1 : std::clamp(*bounds[2].integer(), -n - 1, n + 1);
  if (step == 0) {
    budget->Fail("a slice's step is 0");
    return {};
  }
  const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
  const auto clip = [&](const Value& bound, int64_t otherwise) {
    if (bound.integer() == nullptr) return otherwise;
    const int64_t x = *bound.integer();
    return std::clamp(x >= 0 ? x : x < -n ? int64_t{-1} : x + n, low, high);
  };
  const int64_t begin = clip(bounds[0], step > 0 ? 0 : n - 1), end = clip(bounds[1], step > 0 ? n : -1);
  if (of.text() != nullptr) return PickCharacters(*of.text(), begin, end, step, budget);
  ListBuilder out(budget);
  for (int64_t i = begin; budget->ok() && (step > 0 ? i < end : i > end); i += step)
    out.Append((*of.list())[i]);
  return out.Finish();
}

Value Range(const std::vector<Value>& arguments, Budget* budget) {
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < arguments.size() && i < 3; ++i) {
    if (arguments[i].integer() == nullptr)
      budget->Fail("range takes integers");
    else
      bounds[i] = *arguments[i].integer();
  }
  if (arguments.empty() || arguments.size() > 3 || bounds[2] == 0)
    budget->Fail("range takes one to three integers");
  if (arguments.size() == 1) bounds[1] = std::exchange(bounds[0], 0);
  ListBuilder out(budget);
  for (int64_t i = bounds[0]; budget->ok() && (bounds[2] > 0 ? i < bounds[1] : i > bounds[1]);) {
    out.Append(Value(i));
    if (__builtin_add_overflow(i, bounds[2], &i)) break;
  }
  return out.Finish();
}

}  // namespace sessa::jinja
