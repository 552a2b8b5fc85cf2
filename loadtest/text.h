// Figures as people read them, and tables of them with aligned columns, for the terminal.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "loadtest/definitions.h"
#include "loadtest/report_data.h"

namespace sessa::loadtest {

// With its unit, three or four digits; "-" for NaN: "38.2 ms", "1.24 s", "12.5 %", "1,234".
std::string FigureText(double value, Unit unit);
// "8 req/s" or "16 users".
std::string LoadText(const Run& run);
// The title of all the runs together: their own, or what they swept over where each has a name of its own.
std::string ReportTitle(const std::vector<RunReport>& runs);
// Seconds as milliseconds without the unit, with as many decimals as suit a row whose largest value is
// `largest`.
std::string MillisecondsText(double seconds, double largest);

// On a terminal: control characters, which names from files and servers may hold, as '?'; cut to `width`
// columns.
std::string Printable(absl::string_view text, int width);

// `prefix`, and after it the words of `text` in lines of at most `width` columns that begin under one
// another.
std::string Wrap(absl::string_view prefix, absl::string_view text, int width);

// Rows of cells under one another: the first column to the left, the others to the right.
class TextTable {
 public:
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string Render(int indent, int gap) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace sessa::loadtest
