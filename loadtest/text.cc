// Figures as people read them; see text.h.
#include "loadtest/text.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sessa::loadtest {
namespace {

// Columns of UTF-8: bytes that do not continue a character. Wide characters count as one; names here have
// none.
int Columns(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// "1234567" as "1,234,567".
std::string Grouped(double value) {
  std::string digits = absl::StrFormat("%.0f", value);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(at, 1, ',');
  return digits;
}

std::string ThreeDigits(double value) {
  if (value >= 1000) return Grouped(value);
  return absl::StrFormat("%.*f", value >= 100 ? 0 : value >= 10 ? 1 : 2, value);
}

}  // namespace

std::string FigureText(double value, Unit unit) {
  if (std::isnan(value)) return "-";
  switch (unit) {
    case Unit::kSeconds:
      return value >= 10 ? absl::StrCat(ThreeDigits(value), " s")
                         : absl::StrCat(ThreeDigits(value * 1e3), " ms");
    case Unit::kRequestsPerSecond:
    case Unit::kTokensPerSecond: return ThreeDigits(value);
    case Unit::kRequests:
    case Unit::kTokens:
    case Unit::kCount: return value == std::round(value) ? Grouped(value) : ThreeDigits(value);
    case Unit::kShare: return absl::StrFormat("%.*f %%", value > 0 && value < 0.001 ? 3 : 1, value * 100);
  }
  return "";
}

std::string LoadText(const Run& run) {
  if (!std::isnan(run.offered_rate)) return absl::StrFormat("%.4g req/s", run.offered_rate);
  return absl::StrCat(run.num_users, run.num_users == 1 ? " user" : " users");
}

std::string ReportTitle(const std::vector<RunReport>& runs) {
  const std::string& first = runs.front().run->title;
  if (std::all_of(runs.begin(), runs.end(),
                  [&](const RunReport& report) { return report.run->title == first; })) {
    return first;
  }
  return absl::StrCat("Sweep from ", LoadText(*runs.front().run), " to ", LoadText(*runs.back().run));
}

std::string MillisecondsText(double seconds, double largest) {
  if (std::isnan(seconds)) return "-";
  const int decimals = largest < 0.01 ? 3 : largest < 0.1 ? 2 : largest < 10 ? 1 : 0;
  return absl::StrFormat("%.*f", decimals, seconds * 1e3);
}

std::string Printable(absl::string_view text, int width) {
  std::string out(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  if (Columns(out) <= width) return out;
  size_t end = 0;
  for (int columns = 0; end < out.size(); ++end) {
    columns += (out[end] & 0xC0) != 0x80;
    if (columns == width) break;  // the first byte of the last column that fits: '~' takes its place
  }
  return absl::StrCat(out.substr(0, end), "~");
}

std::string Wrap(absl::string_view prefix, absl::string_view text, int width) {
  const int indent = Columns(prefix);
  std::string out(prefix);
  int column = indent;
  for (absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (column > indent && column + 1 + Columns(word) > width) {
      absl::StrAppend(&out, "\n", std::string(indent, ' '));
      column = indent;
    }
    absl::StrAppend(&out, column > indent ? " " : "", word);
    column += Columns(word) + (column > indent);
  }
  return out;
}

std::string TextTable::Render(int indent, int gap) const {
  std::vector<int> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Columns(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line(indent, ' ');
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - Columns(row[i]), ' ');
      absl::StrAppend(&line, i == 0 ? "" : std::string(gap, ' '), i == 0 ? row[i] : padding,
                      i == 0 ? padding : row[i]);
    }
    absl::StrAppend(&out, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return out;
}

}  // namespace sessa::loadtest
