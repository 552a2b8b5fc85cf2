// Writes the reports; see report.h.
#include "loadtest/report.h"

#include <ostream>

#include "absl/strings/str_cat.h"
#include "loadtest/csv_report.h"
#include "loadtest/file.h"
#include "loadtest/html_report.h"
#include "loadtest/json_report.h"
#include "loadtest/report_data.h"
#include "loadtest/terminal_report.h"

namespace sessa::loadtest {

absl::Status WriteReports(const std::vector<Run>& runs, const ReportOptions& options) {
  std::vector<RunReport> reports;
  for (const Run& run : runs) {
    RunReport report{&run, Summarize(run, options.slo), {}};
    report.server = SummarizeServer(run.server_metrics, report.summary.window);
    reports.push_back(std::move(report));
  }
  absl::Status result;
  auto write = [&result](const std::string& path, auto make) {
    if (path.empty()) return;
    const absl::Status status = WriteFile(path, make());
    if (status.ok()) return;
    result = result.ok()
                 ? status
                 : absl::Status(result.code(), absl::StrCat(result.message(), "; ", status.message()));
  };
  write(options.json_path, [&] { return PrettyJson(JsonReport(reports, options.slo), 1); });
  write(options.csv_path, [&] { return CsvReport(reports); });
  write(options.html_path, [&] { return HtmlReport(reports, options.slo); });
  if (options.table != nullptr) *options.table << TerminalReport(reports, options.slo) << std::flush;
  return result;
}

}  // namespace sessa::loadtest
