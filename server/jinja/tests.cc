// Jinja2's tests, `value is name(argument)`.
#include <iterator>

#include "server/jinja/builtins.h"
#include "server/jinja/callables.h"
#include "server/jinja/iterate.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

template <Operator op>
Value Compare(const Value& self, const Bound& args, Budget* budget) {
  return Binary(op, self, args[0], budget);
}

// value % divisor, as Python computes it for whatever it is.
template <int remainder>
Value ModuloTwo(const Value& self, const Bound&, Budget* budget) {
  const Value rest = Arithmetic(Operator::kModulo, self, Value(int64_t{2}), budget);
  return Value(budget->ok() && Equal(rest, Value(int64_t{remainder}), budget));
}

Value DivisibleBy(const Value& self, const Bound& args, Budget* budget) {
  const Value rest = Arithmetic(Operator::kModulo, self, args[0], budget);
  return Value(budget->ok() && Equal(rest, Value(int64_t{0}), budget));
}

template <Case is>
Value HasCase(const Value& self, const Bound&, Budget* budget) {
  const Value text = Str(self, budget);
  return Value(text.text() != nullptr && IsCase(*text.text(), is, budget));
}

Value Known(const Value& self, const Builtin* (*find)(std::string_view), Budget* budget) {
  if (!IsHashable(self)) budget->Fail("unhashable type: '" + TypeName(self) + "'");
  return Value(self.text() != nullptr && find(*self.text()) != nullptr);
}

bool IsSequence(const Value& v) { return (HasLength(v) && v.As<DictView>() == nullptr); }

constexpr Builtin kTests[] = {
    {"defined", "", [](const Value& v, const Bound&, Budget*) { return Value(v.is_defined()); }},
    {"undefined", "", [](const Value& v, const Bound&, Budget*) { return Value(!v.is_defined()); }},
    {"none", "", [](const Value& v, const Bound&, Budget*) { return Value(v.is_none()); }},
    {"boolean", "", [](const Value& v, const Bound&, Budget*) { return Value(v.boolean() != nullptr); }},
    {"true", "",
     [](const Value& v, const Bound&, Budget*) { return Value(v.boolean() != nullptr && *v.boolean()); }},
    {"false", "",
     [](const Value& v, const Bound&, Budget*) { return Value(v.boolean() != nullptr && !*v.boolean()); }},
    {"integer", "", [](const Value& v, const Bound&, Budget*) { return Value(v.integer() != nullptr); }},
    {"float", "", [](const Value& v, const Bound&, Budget*) { return Value(v.real() != nullptr); }},
    {"number", "", [](const Value& v, const Bound&, Budget*) { return Value(v.is_number()); }},
    {"string", "", [](const Value& v, const Bound&, Budget*) { return Value(v.text() != nullptr); }},
    {"mapping", "", [](const Value& v, const Bound&, Budget*) { return Value(v.dict() != nullptr); }},
    {"sequence", "", [](const Value& v, const Bound&, Budget*) { return Value(IsSequence(v)); }},
    {"iterable", "", [](const Value& v, const Bound&, Budget*) { return Value(IsIterable(v)); }},
    {"callable", "",
     [](const Value& v, const Bound&, Budget*) {
       return Value(!v.is_defined() || v.As<Callable>() != nullptr);  // Undefined has __call__, which raises
     }},
    {"escaped", "", [](const Value& v, const Bound&, Budget*) { return Value(v.is_markup()); }},
    {"sameas", "other", [](const Value& v, const Bound& args, Budget*) { return Value(v.IsSame(args[0])); }},
    {"lower", "", HasCase<Case::kLower>},
    {"upper", "", HasCase<Case::kUpper>},
    {"odd", "", ModuloTwo<1>},
    {"even", "", ModuloTwo<0>},
    {"divisibleby", "num", DivisibleBy},
    {"filter", "", [](const Value& v, const Bound&, Budget* b) { return Known(v, FindFilter, b); }},
    {"test", "", [](const Value& v, const Bound&, Budget* b) { return Known(v, FindTest, b); }},
    {"in", "seq", [](const Value& v, const Bound& a, Budget* b) { return Value(Contains(a[0], v, b)); }},
    {"eq", "/ other", Compare<Operator::kEqual>},
    {"==", "/ other", Compare<Operator::kEqual>},
    {"equalto", "/ other", Compare<Operator::kEqual>},
    {"ne", "/ other", Compare<Operator::kNotEqual>},
    {"!=", "/ other", Compare<Operator::kNotEqual>},
    {"gt", "/ other", Compare<Operator::kGreater>},
    {">", "/ other", Compare<Operator::kGreater>},
    {"greaterthan", "/ other", Compare<Operator::kGreater>},
    {"ge", "/ other", Compare<Operator::kGreaterEqual>},
    {">=", "/ other", Compare<Operator::kGreaterEqual>},
    {"lt", "/ other", Compare<Operator::kLess>},
    {"<", "/ other", Compare<Operator::kLess>},
    {"lessthan", "/ other", Compare<Operator::kLess>},
    {"le", "/ other", Compare<Operator::kLessEqual>},
    {"<=", "/ other", Compare<Operator::kLessEqual>},
};

}  // namespace

BuiltinTable Tests() { return {std::begin(kTests), std::end(kTests)}; }

}  // namespace sessa::jinja
