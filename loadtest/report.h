// What a load test says when it is over: a table for the terminal, JSON, CSV with a line for each request,
// one HTML file. Called once by main, after the last run.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "loadtest/record.h"
#include "loadtest/slo.h"

namespace sessa::loadtest {

struct ReportOptions {
  Slo slo;
  std::ostream* table = nullptr;               // where the terminal's table goes; null: nowhere
  std::string json_path, csv_path, html_path;  // empty: none
};

// Several runs are a sweep over rates, in the order that they were made. Each file is replaced at once: it is
// never there in part. One that can't be written does not stop the others; the error names every one.
absl::Status WriteReports(const std::vector<Run>& runs, const ReportOptions& options);

}  // namespace sessa::loadtest
