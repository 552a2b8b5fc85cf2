// Python's operators on values. All of them charge the budget for what they read and make, and fail it where
// Python raises; once it has failed they return anything.
#pragma once

#include <cstdint>
#include <string_view>

#include "server/jinja/budget.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

enum class Operator {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};
std::string_view NameOf(Operator op);  // as a template writes it

bool Truth(const Value& v);
bool Equal(const Value& a, const Value& b, Budget* budget);
// op: one of the four orders.
bool Order(Operator op, const Value& a, const Value& b, Budget* budget);
bool Contains(const Value& in, const Value& what, Budget* budget);
// Characters of a text, items of what has some; fails where Python's len does.
int64_t Length(const Value& v, Budget* budget);
bool HasLength(const Value& v);

Value Arithmetic(Operator op, const Value& a, const Value& b, Budget* budget);
Value Negated(const Value& v, bool plus, Budget* budget);
// Any of the operators.
Value Binary(Operator op, const Value& a, const Value& b, Budget* budget);

// As a key of a mapping.
bool IsHashable(const Value& v);
// Where a key is; the size when it is not there.
size_t FindKey(const Dict& dict, const Value& key, Budget* budget);
size_t FindKey(const Dict& dict, std::string_view key, Budget* budget);

}  // namespace sessa::jinja
