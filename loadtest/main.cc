// sessa-loadtest: reads its flags, asks the server what it is, sends the load, says what came of it. The
// table goes to stdout, everything else to stderr. Exit codes: 0; 1 with a line that says what is wrong; 3
// when the client itself lagged, so that the figures can't be trusted.
#include <sys/resource.h>

#include <cstdio>
#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "loadtest/options.h"
#include "loadtest/progress.h"
#include "loadtest/report.h"
#include "loadtest/session.h"

namespace sessa::loadtest {
namespace {

// A connection is a file: as many as the system lets this process have.
void RaiseFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

absl::StatusOr<int> Main(int argc, char** argv) {
  std::string text;
  absl::StatusOr<Options> options = ParseOptions(argc, argv, &text);
  if (!options.ok()) return options.status();
  if (!text.empty()) {
    std::cout << text;
    return 0;
  }
  const absl::StatusOr<Target> target = Reach(&*options);
  if (!target.ok()) return target.status();
  RaiseFileLimit();
  Progress progress(options->progress ? ProgressOnStderr() : ProgressOptions());
  const std::vector<Run> runs = RunAll(*options, *target, &progress);

  ReportOptions report;
  report.slo = options->slo;
  report.table = &std::cout;
  report.json_path = options->json_path;
  report.csv_path = options->csv_path;
  report.html_path = options->html_path;
  if (absl::Status written = WriteReports(runs, report); !written.ok()) return written;
  int code = 0;
  for (const Run& run : runs) {
    if (run.client.failure.empty()) continue;
    std::fprintf(stderr, "sessa-loadtest: %s: %s\n", run.title.c_str(), run.client.failure.c_str());
    code = 3;
  }
  return code;
}

}  // namespace
}  // namespace sessa::loadtest

int main(int argc, char** argv) {
  const absl::StatusOr<int> code = sessa::loadtest::Main(argc, argv);
  if (code.ok()) return *code;
  std::fprintf(stderr, "sessa-loadtest: %s\n", std::string(code.status().message()).c_str());
  return 1;
}
