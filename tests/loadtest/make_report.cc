// Writes reports of made-up runs, for the tests in a browser and for those who change the page:
//   loadtest_make_report DIRECTORY
// one.html (a run), sweep.html, empty.html (nothing came), hostile.html (names that would be markup),
// many.html (100 000 requests); with the JSON and CSV of each beside it.
#include <iostream>

#include "absl/strings/str_cat.h"
#include "loadtest/report.h"
#include "tests/loadtest/synthetic_runs.h"

namespace sessa::loadtest {
namespace {

Run EmptyRun() {
  SyntheticLoad load;
  load.num_requests = 20;
  load.has_server_metrics = false;
  load.failure = "the event loop was 1.2 s late, so latencies are at least so much too long";
  Run run = MakeRun(load, 1);
  run.offered_rate = kNever;
  run.num_users = 4;
  for (RequestRecord& request : run.requests) {
    request.events.clear();
    request.outcome = Outcome::kConnect;
    request.error = "connection refused";
    request.cached_tokens = request.prompt_tokens = -1;
    request.queue_seconds = request.headers = kNever;
  }
  return run;
}

Run HostileRun() {
  Run run = MakeRun(SyntheticLoad(), 2);
  const std::string markup =
      "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";
  run.title = run.model = run.server = run.client.failure = markup;
  run.options = {{markup, markup}, {"title", "<!--<script>"}};
  for (size_t i = 0; i < run.requests.size(); i += 2) {
    run.requests[i].kind = run.requests[i].tenant = run.requests[i].error = markup;
  }
  return run;
}

std::vector<Run> Sweep() {
  std::vector<Run> runs;
  for (double rate : {2, 4, 6, 8, 10, 12, 14, 16}) {
    SyntheticLoad load;
    load.rate = rate;
    load.num_requests = static_cast<int>(rate * 40);
    load.stall_at = 20;
    if (rate == 16) load.failure = "requests were sent up to 310 ms after their time";
    runs.push_back(MakeRun(load, 3));
  }
  return runs;
}

absl::Status MakeAll(const std::string& directory) {
  SyntheticLoad many;
  many.num_requests = 100'000;
  many.rate = many.capacity = 400;
  many.tokens = 20;
  const std::pair<const char*, std::vector<Run>> reports[] = {{"one", {MakeRun(SyntheticLoad(), 4)}},
                                                              {"sweep", Sweep()},
                                                              {"empty", {EmptyRun()}},
                                                              {"hostile", {HostileRun()}},
                                                              {"many", {MakeRun(many, 5)}}};
  for (const auto& [name, runs] : reports) {
    ReportOptions options;
    options.slo = *ParseSlo("ttft:500ms,tpot:50ms,e2e:10s");
    if (name != absl::string_view("many")) options.table = &std::cout;
    options.html_path = absl::StrCat(directory, "/", name, ".html");
    options.json_path = absl::StrCat(directory, "/", name, ".json");
    options.csv_path = absl::StrCat(directory, "/", name, ".csv");
    if (absl::Status status = WriteReports(runs, options); !status.ok()) return status;
    std::cout << "\n";
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace sessa::loadtest

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: loadtest_make_report DIRECTORY\n";
    return 2;
  }
  const absl::Status status = sessa::loadtest::MakeAll(argv[1]);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
