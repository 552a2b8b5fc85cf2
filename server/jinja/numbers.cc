#include "server/jinja/numbers.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "absl/strings/str_format.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

// Without the white space around and the _ between digits; nothing where a _ may not be.
std::optional<std::string> Bare(std::string_view text) {
  while (!text.empty() && IsSpace(LastCharacter(text))) {
    size_t at = 0, last = 0;
    while (at < text.size()) last = at, NextCharacter(text, &at);
    text = text.substr(0, last);
  }
  for (size_t at = 0; !text.empty() && IsSpace(NextCharacter(text, &at)); at = 0) text.remove_prefix(at);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto is_digit = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at]));
    };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
  }
  return out;
}

}  // namespace

std::optional<int64_t> ParseInteger(std::string_view text, int base) {
  const auto bare = Bare(text);
  if (!bare.has_value() || bare->empty()) return std::nullopt;
  std::string_view digits = *bare;
  const bool negative = digits[0] == '-';
  if (digits[0] == '-' || digits[0] == '+') digits.remove_prefix(1);
  if (digits.size() > 1 && digits[0] == '0') {
    const char mark = static_cast<char>(std::tolower(digits[1]));
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      base = marked;
      digits.remove_prefix(2);
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return std::nullopt;
  uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), magnitude, base);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (magnitude > static_cast<uint64_t>(INT64_MAX) + (negative ? 1 : 0)) return std::nullopt;
  return negative ? static_cast<int64_t>(0 - magnitude) : static_cast<int64_t>(magnitude);
}

std::optional<double> ParseReal(std::string_view text) {
  const auto bare = Bare(text);
  if (!bare.has_value() || bare->empty()) return std::nullopt;
  std::string_view digits = *bare;
  const bool negative = digits[0] == '-';
  if (digits[0] == '-' || digits[0] == '+') digits.remove_prefix(1);
  std::string lower(digits);
  std::transform(lower.begin(), lower.end(), lower.begin(), ::tolower);
  double x = 0;
  if (lower == "inf" || lower == "infinity") {
    x = HUGE_VAL;
  } else if (lower == "nan") {
    x = std::nan("");
  } else {
    if (digits.empty() || !(std::isdigit(static_cast<unsigned char>(digits[0])) || digits[0] == '.'))
      return std::nullopt;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), x);
    if (end != digits.data() + digits.size() || error == std::errc::invalid_argument) return std::nullopt;
    // Python takes what is too large for infinite, and what is too small for 0.
    if (error == std::errc::result_out_of_range) x = std::strtod(std::string(digits).c_str(), nullptr);
  }
  return negative ? -x : x;
}

Value RoundHalfEven(const Value& number, int64_t digits, Budget* budget) {
  if (const auto x = number.AsInteger()) {
    if (digits >= 0) return Value(*x);
    if (digits < -18) return Value(int64_t{0});
    int64_t unit = 1;
    for (int64_t i = digits; i < 0; ++i) unit *= 10;
    int64_t down = *x - ((*x % unit) + unit) % unit;
    const int64_t rest = *x - down;
    if (rest > unit / 2 || (rest * 2 == unit && (down / unit) % 2 != 0)) down += unit;
    return Value(down);
  }
  const double x = *number.real();
  if (!std::isfinite(x) || digits > 300) return number;
  if (digits < -308) return Value(std::copysign(0.0, x));
  if (digits >= 0) {
    // The correctly rounded decimal, read back: printf rounds the exact value, half to even.
    return Value(std::strtod(absl::StrFormat("%.*f", static_cast<int>(digits), x).c_str(), nullptr));
  }
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  (void)budget;
  return Value(std::nearbyint(x / unit) * unit);
}

}  // namespace sessa::jinja
