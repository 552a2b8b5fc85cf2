// See prometheus_text.h.
#include "loadtest/prometheus_text.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sessa::loadtest {
namespace {

// The length of "name" or "name{...}" at the start of `line`; npos: it is neither. A label's value may hold
// anything, with backslashes before quotes.
size_t SeriesLength(absl::string_view line) {
  size_t i = 0;
  while (i < line.size() && (absl::ascii_isalnum(line[i]) || line[i] == '_' || line[i] == ':')) ++i;
  if (i == 0) return absl::string_view::npos;
  if (i == line.size() || line[i] != '{') return i;
  bool quoted = false;
  for (++i; i < line.size(); ++i) {
    if (quoted && line[i] == '\\') {
      ++i;
    } else if (line[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && line[i] == '}') {
      return i + 1;
    }
  }
  return absl::string_view::npos;
}

}  // namespace

absl::StatusOr<std::map<std::string, double>> ParsePrometheusText(absl::string_view text) {
  std::map<std::string, double> values;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    const size_t length = SeriesLength(line);
    double value = 0;
    const std::vector<absl::string_view> rest =
        length == absl::string_view::npos
            ? std::vector<absl::string_view>()
            : absl::StrSplit(line.substr(length), absl::ByAnyChar(" \t"), absl::SkipEmpty());
    // SimpleAtod takes NaN and +Inf, as the format writes them.
    if (rest.empty() || rest.size() > 2 || !absl::SimpleAtod(rest[0], &value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, " is not in the Prometheus text format: ", line.substr(0, 100)));
    }
    values[std::string(line.substr(0, length))] = value;
  }
  return values;
}

}  // namespace sessa::loadtest
