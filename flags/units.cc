// See units.h.
#include "flags/units.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace sessa {
namespace {

// The least first letter is a kilobyte's.
constexpr absl::string_view kPrefixes = "kmgt";

// 1024 of "KiB", 1000 of "kB", 1 of nothing; 0 of what is no unit.
double BytesOfUnit(absl::string_view unit) {
  if (unit.empty() || absl::EqualsIgnoreCase(unit, "b")) return 1;
  const size_t power = kPrefixes.find(absl::ascii_tolower(unit[0]));
  if (power == absl::string_view::npos) return 0;
  unit.remove_prefix(1);
  const bool binary = absl::ConsumePrefix(&unit, "i");
  if (!unit.empty() && !absl::EqualsIgnoreCase(unit, "b")) return 0;
  return std::pow(binary ? 1024 : 1000, static_cast<double>(power + 1));
}

// `text` as a number of `unit`s, or as a duration with units of its own.
bool ParseTime(absl::string_view text, absl::Duration unit, double* value, std::string* error) {
  const std::string stripped(absl::StripAsciiWhitespace(text));
  absl::Duration duration;
  if (!absl::SimpleAtod(stripped, value)) {
    if (!absl::ParseDuration(stripped, &duration)) {
      *error = "not a time such as 30, 30s, 250ms or 1h30m";
      return false;
    }
    *value = absl::FDivDuration(duration, unit);
  }
  if (!std::isfinite(*value)) *error = "not a finite time";
  return std::isfinite(*value);
}

}  // namespace

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error) {
  text = absl::StripAsciiWhitespace(text);
  const size_t end = text.find_first_not_of("0123456789.");
  const absl::string_view number = text.substr(0, end);
  const absl::string_view unit =
      end == absl::string_view::npos ? "" : absl::StripLeadingAsciiWhitespace(text.substr(end));
  const double scale = BytesOfUnit(unit);
  double value = 0;
  if (scale == 0 || !absl::SimpleAtod(number, &value)) {
    *error = "not a size such as 65536, 512MiB or 4GiB";
    return false;
  }
  if (value * scale >= 9.2e18) {
    *error = "too many bytes";
    return false;
  }
  if (unit.empty() && absl::SimpleAtoi(number, &size->bytes)) return true;  // exact above 2^53 too
  size->bytes = static_cast<int64_t>(value * scale);
  return true;
}

std::string AbslUnparseFlag(ByteSize size) {
  int power = 0;
  for (; size.bytes != 0 && size.bytes % 1024 == 0 && power < static_cast<int>(kPrefixes.size()); ++power)
    size.bytes /= 1024;
  if (power == 0) return absl::StrCat(size.bytes);
  return absl::StrCat(size.bytes, std::string(1, absl::ascii_toupper(kPrefixes[power - 1])), "iB");
}

bool AbslParseFlag(absl::string_view text, FlagSeconds* seconds, std::string* error) {
  return ParseTime(text, absl::Seconds(1), &seconds->value, error);
}

std::string AbslUnparseFlag(FlagSeconds seconds) { return absl::StrCat(seconds.value); }

bool AbslParseFlag(absl::string_view text, FlagMilliseconds* milliseconds, std::string* error) {
  return ParseTime(text, absl::Milliseconds(1), &milliseconds->value, error);
}

std::string AbslUnparseFlag(FlagMilliseconds milliseconds) { return absl::StrCat(milliseconds.value); }

}  // namespace sessa
