// Python's two ways to format: '%s' % value and '{}'.format(value). Widths are charged before they are
// written.
#pragma once

#include <string_view>

#include "server/jinja/budget.h"
#include "server/jinja/object.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

// A tuple's items go one after the other, a mapping's by name, and anything else is the one value.
Value FormatPercent(const Value& format, const Value& values, Budget* budget);
Value FormatBraces(const Value& format, const Arguments& arguments, Budget* budget);
// format(value, spec) as the fields of '{}'.format do.
Value FormatField(const Value& value, std::string_view spec, Budget* budget);

struct NumberStyle {
  char type = 'g';  // one of d o x X b e E f F g G % and r, the shortest
  char sign = '-';  // '-', '+' or ' '
  bool alternate = false, zero = false;
  int64_t width = 0;   // with zeros, when `zero`
  int precision = -1;  // none
  char grouping = 0;   // ',' or '_'
};
// Sign and digits of a number, padded with zeros alone. Requires: a type that fits the value.
std::string FormatNumber(const Value& v, const NumberStyle& style);

}  // namespace sessa::jinja
