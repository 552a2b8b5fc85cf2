// Python's int(text, base), float(text) and round(number, digits).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "server/jinja/budget.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

// Nothing for what is no number, or an integer of more than 64 bits. White space around is fine, and _
// between digits.
std::optional<int64_t> ParseInteger(std::string_view text, int base);
std::optional<double> ParseReal(std::string_view text);
// To even where it is in the middle, as the decimal digits of the exact value say.
Value RoundHalfEven(const Value& number, int64_t digits, Budget* budget);

}  // namespace sessa::jinja
