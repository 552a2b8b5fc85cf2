// See format.h.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/jinja/format.h"
#include "server/jinja/print.h"

namespace sessa::jinja {
namespace {

std::string IntegerDigits(uint64_t magnitude, const NumberStyle& style) {
  const char type = style.type;
  const int base = type == 'o' ? 8 : type == 'b' ? 2 : (type == 'x' || type == 'X') ? 16 : 10;
  char buffer[72];
  std::string digits(buffer, std::to_chars(buffer, buffer + sizeof buffer, magnitude, base).ptr);
  if (type == 'X') std::transform(digits.begin(), digits.end(), digits.begin(), ::toupper);
  return digits;
}

std::string RealDigits(double magnitude, const NumberStyle& style) {
  const char lower = static_cast<char>(std::tolower(style.type));
  std::string digits;
  if (style.type == 'r') {
    digits = ReprOf(magnitude);
  } else if (!std::isfinite(magnitude)) {
    digits = std::isnan(magnitude) ? "nan" : "inf";
  } else {
    const int precision = style.precision < 0 ? 6 : style.precision;
    const std::string format = absl::StrCat("%", style.alternate ? "#" : "", ".*", std::string(1, lower));
    const int size = std::snprintf(nullptr, 0, format.c_str(), precision, magnitude);
    digits.resize(static_cast<size_t>(size) + 1);
    std::snprintf(digits.data(), digits.size(), format.c_str(), precision, magnitude);
    digits.pop_back();
  }
  if (std::isupper(static_cast<unsigned char>(style.type)))
    std::transform(digits.begin(), digits.end(), digits.begin(), ::toupper);
  return digits;
}

// Separators into the digits before the point, and zeros in front of them until all are `width` wide.
std::string Grouped(const std::string& digits, char separator, size_t every, size_t width) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  std::string out;
  const size_t tail = digits.size() - whole;
  size_t count = 0;
  for (size_t i = whole; i > 0 || out.size() + tail < width; ++count) {
    if (count > 0 && count % every == 0) out += separator;
    out += i > 0 ? digits[--i] : '0';
  }
  std::reverse(out.begin(), out.end());
  return out + digits.substr(whole);
}

}  // namespace

std::string FormatNumber(const Value& v, const NumberStyle& style) {
  std::string prefix, digits;
  bool negative = false;
  const bool integral =
      style.type == 'd' || style.type == 'o' || style.type == 'x' || style.type == 'X' || style.type == 'b';
  if (integral) {
    const int64_t x = *v.AsInteger();
    negative = x < 0;
    digits = IntegerDigits(negative ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x), style);
    if (style.alternate && style.type != 'd') prefix = {'0', style.type};
  } else {
    double x = v.AsReal();
    negative = std::signbit(x) && !std::isnan(x);
    x = std::fabs(x);
    NumberStyle real = style;
    if (style.type == '%') x *= 100, real.type = 'f';
    digits = RealDigits(x, real);
    if (style.type == '%') digits += '%';
  }
  std::string sign = negative ? "-" : style.sign == '-' ? "" : std::string(1, style.sign);
  sign += prefix;
  const size_t width = style.zero ? static_cast<size_t>(style.width) : 0;
  const size_t left = width > sign.size() ? width - sign.size() : 0;
  if (style.grouping != 0) {
    const bool bits = style.type == 'x' || style.type == 'X' || style.type == 'o' || style.type == 'b';
    digits = Grouped(digits, style.grouping, bits ? 4 : 3, left);
  } else if (digits.size() < left) {
    digits.insert(0, left - digits.size(), '0');
  }
  return sign + digits;
}

}  // namespace sessa::jinja
