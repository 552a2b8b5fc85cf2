// Going over whatever Python can go over.
#pragma once

#include "server/jinja/budget.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

class Walk {
 public:
  // Fails the budget when `over` cannot be iterated.
  Walk(Value over, Budget* budget);
  // False at the end, and once the budget has failed. A step.
  bool Next(Value* item);

 private:
  const Value over_;
  Budget* const budget_;
  size_t at_ = 0;
};

bool IsIterable(const Value& v);
// All the items there are left.
Value ListOf(const Value& over, Budget* budget);

}  // namespace sessa::jinja
