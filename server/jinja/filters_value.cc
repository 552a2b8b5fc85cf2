// Jinja2's filters of any value and of numbers, and Hugging Face's tojson.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/jinja/builtins.h"
#include "server/jinja/format.h"
#include "server/jinja/iterate.h"
#include "server/jinja/members.h"
#include "server/jinja/numbers.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

Value Default(const Value& self, const Bound& args, Budget*) {
  if (self.is_defined() && (!args.Truth(1, false) || Truth(self))) return self;
  return args.ValueOr(0, Value::Literal(""));
}

Value ToInteger(const Value& self, const Bound& args, Budget* budget) {
  const Value otherwise = args.ValueOr(0, Value(int64_t{0}));
  if (!self.is_defined()) {
    budget->Fail(self.UndefinedMessage());
    return {};
  }
  const int64_t base = args.Integer(1, 10);
  std::optional<double> real;
  if (self.text() != nullptr) {
    if (!budget->StepBytes(static_cast<int64_t>(self.text()->size()))) return {};
    bool too_large = false;
    if (const auto x = ParseInteger(*self.text(), static_cast<int>(base), &too_large)) return Value(*x);
    if (too_large) {
      budget->Fail("an integer has more than 64 bits");
      return {};
    }
    real = ParseReal(*self.text());
  } else if (const auto x = self.AsInteger()) {
    return Value(*x);
  } else if (self.real() != nullptr) {
    real = *self.real();
  }
  if (!real.has_value()) return otherwise;
  if (std::isinf(*real) && self.real() != nullptr) {
    budget->Fail("cannot convert float infinity to integer");
    return {};
  }
  if (!std::isfinite(*real)) return otherwise;
  if (std::fabs(*real) >= 9.2e18) {
    budget->Fail("an integer has more than 64 bits");
    return {};
  }
  return Value(static_cast<int64_t>(*real));
}

Value ToFloat(const Value& self, const Bound& args, Budget* budget) {
  if (!self.is_defined()) {
    budget->Fail(self.UndefinedMessage());
    return {};
  }
  if (self.is_number()) return Value(self.AsReal());
  if (self.text() != nullptr && budget->StepBytes(static_cast<int64_t>(self.text()->size()))) {
    if (const auto x = ParseReal(*self.text())) return Value(*x);
  }
  return args.ValueOr(0, Value(0.0));
}

Value Absolute(const Value& self, const Bound&, Budget* budget) {
  if (self.real() != nullptr) return Value(std::fabs(*self.real()));
  if (const auto x = self.AsInteger()) return *x < 0 ? Negated(self, false, budget) : Value(*x);
  budget->Fail(self.is_defined() ? absl::StrCat("bad operand type for abs(): '", TypeName(self), "'")
                                 : self.UndefinedMessage());
  return {};
}

Value Round(const Value& self, const Bound& args, Budget* budget) {
  const Value method = args.ValueOr(1, Value::Literal("common"));
  const std::string name = method.text() != nullptr ? *method.text() : "";
  if (name != "common" && name != "ceil" && name != "floor")
    budget->Fail("method must be common, ceil or floor");
  if (!self.is_number()) budget->Fail(self.is_defined() ? "round takes a number" : self.UndefinedMessage());
  const int64_t precision = args.Integer(0, 0);
  if (!budget->ok()) return {};
  if (name == "common") return RoundHalfEven(self, precision, budget);
  const Value scale = Arithmetic(Operator::kPower, Value(int64_t{10}), Value(precision), budget);
  const Value scaled = Arithmetic(Operator::kMultiply, self, scale, budget);
  if (!budget->ok()) return {};
  Value whole = scaled;
  if (scaled.real() != nullptr) {
    if (!std::isfinite(*scaled.real())) {
      budget->Fail("cannot convert float infinity or NaN to integer");
      return {};
    }
    // Python's are integers: there is no -0.
    whole = Value((name == "ceil" ? std::ceil(*scaled.real()) : std::floor(*scaled.real())) + 0.0);
  }
  return Arithmetic(Operator::kDivide, whole, scale, budget);
}

Value ToJson(const Value& self, const Bound& args, Budget* budget) {
  JsonStyle style;
  style.ensure_ascii = args.Truth(0, false);
  style.sort_keys = args.Truth(3, false);
  if (args.has_some(1)) {
    style.lines = true;
    style.item_separator.resize(1);  // the comma alone
    if (args[1].text() != nullptr) {
      style.indent = args.Text(1);
    } else {
      style.indent.assign(static_cast<size_t>(std::clamp<int64_t>(args.Integer(1, 0), 0, 1000)), ' ');
    }
  }
  if (args.has_some(2)) {
    const Value separators = ListOf(args[2], budget);
    if (!budget->ok()) return {};
    const List& items = *separators.items();
    if (items.size() != 2 || items[0].text() == nullptr || items[1].text() == nullptr) {
      budget->Fail("tojson's separators must be two texts");
      return {};
    }
    style.item_separator = *items[0].text();
    style.key_separator = *items[1].text();
  }
  TextBuilder out(budget);
  AppendJson(self, style, 0, budget, &out);
  return out.Finish();
}

Value FileSizeFormat(const Value& self, const Bound& args, Budget* budget) {
  const bool binary = args.Truth(0, false);
  std::optional<double> bytes;
  if (self.is_number()) bytes = self.AsReal();
  if (self.text() != nullptr) bytes = ParseReal(*self.text());
  if (!bytes.has_value()) {
    budget->Fail("filesizeformat takes a number");
    return {};
  }
  const double base = binary ? 1024 : 1000;
  if (*bytes == 1) return budget->Text("1 Byte");
  if (*bytes < base) return budget->Text(absl::StrCat(static_cast<int64_t>(*bytes), " Bytes"));
  static constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  for (; i < kPrefixes.size(); ++i) {
    unit *= base;
    if (*bytes < unit) break;
  }
  const char prefix = kPrefixes[std::min(i, kPrefixes.size() - 1)];
  const std::string name = binary ? absl::StrCat(prefix == 'k' ? "K" : std::string(1, prefix), "iB")
                                  : absl::StrCat(std::string(1, prefix), "B");
  return budget->Text(absl::StrFormat("%.1f %s", base * *bytes / unit, name));
}

Value Attr(const Value& self, const Bound& args, Budget* budget) {
  const std::string& name = args.Text(0);
  if (!budget->ok()) return {};
  // Attributes alone, never a mapping's keys.
  if (self.dict() != nullptr && FindMethod(self, name) == nullptr) return {};
  return self.is_defined() ? Item(self, args[0], nullptr, budget) : Attribute(self, &name, budget);
}

constexpr Builtin kValueFilters[] = {
    {"default", "| default_value boolean", Default},
    {"d", "| default_value boolean", Default},
    {"int", "| default base", ToInteger},
    {"float", "| default", ToFloat},
    {"abs", "/", Absolute},
    {"round", "| precision method", Round},
    {"tojson", "| ensure_ascii indent separators sort_keys", ToJson},
    {"filesizeformat", "| binary", FileSizeFormat},
    {"attr", "name", Attr},
};

}  // namespace

BuiltinTable ValueFilters() { return {std::begin(kValueFilters), std::end(kValueFilters)}; }

}  // namespace sessa::jinja
