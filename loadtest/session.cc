// See session.h.
#include "loadtest/session.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "boost/asio/signal_set.hpp"
#include "loadtest/grpc_client.h"
#include "loadtest/metrics_scraper.h"
#include "loadtest/mixes.h"
#include "loadtest/rest_client.h"
#include "loadtest/sweep.h"

namespace sessa::loadtest {
namespace {

// The time before a run's first request, in which requests are made ahead.
constexpr double kLeadSeconds = 0.1;
constexpr double kProgressSeconds = 0.1;

int64_t LongestRequest(const WorkloadOptions& work) {
  int64_t longest = 0;
  for (const WorkloadPart& part : work.parts) longest = std::max(longest, part.MaxContext());
  for (const TraceEntry& entry : work.trace)
    longest = std::max<int64_t>(longest, int64_t{entry.input_length} + entry.output_length);
  return longest;
}

// --max_context.
absl::Status FitWork(int max_context, WorkloadOptions* work) {
  if (!work->parts.empty()) {
    absl::StatusOr<std::vector<WorkloadPart>> parts = FitMix(std::move(work->parts), max_context);
    if (!parts.ok()) return parts.status();
    work->parts = *std::move(parts);
  } else if (const int64_t longest = LongestRequest(*work); longest > max_context) {
    ScaleTrace(static_cast<double>(max_context) / static_cast<double>(longest), &work->trace,
               &work->trace_block_tokens);
  }
  return absl::OkStatus();
}

std::unique_ptr<Client> MakeClient(const Options& options, const Target& target, boost::asio::io_context* io,
                                   const Clock& clock) {
  if (options.grpc) return MakeGrpcClient(io, clock, options.grpc_address, options.request);
  return MakeRestClient(io, clock, options.http, target.endpoints, options.request);
}

std::unique_ptr<Arrivals> MakeArrivals(const Options& options, double rate) {
  if (options.load.num_users > 0) return nullptr;
  if (!options.work.trace.empty()) {
    std::vector<double> times;
    for (const TraceEntry& entry : options.work.trace) times.push_back(entry.at);
    return std::make_unique<ListedArrivals>(std::move(times));
  }
  ArrivalOptions arrivals = options.arrivals;
  arrivals.rate = rate;
  if (arrivals.end_rate == 0) arrivals.end_rate = rate;
  return std::make_unique<RateArrivals>(arrivals);
}

std::string DescribeLoad(const Options& options) {
  if (options.load.num_users > 0) return absl::StrCat(options.load.num_users, " users");
  if (options.rates.empty()) return absl::StrCat("a trace of ", options.work.trace.size(), " requests");
  return absl::StrCat(options.rates[0], " requests/s");
}

}  // namespace

absl::StatusOr<Target> Reach(Options* options) {
  Target target;
  const std::string& key = options->request.tenants[0].key;
  absl::StatusOr<ServerInfo> info;
  if (options->grpc) {
    info = AskGrpcServer(options->grpc_address, key, options->request.model);
  } else {
    auto endpoints = Resolve(options->http);
    if (!endpoints.ok()) return endpoints.status();
    target.endpoints = *std::move(endpoints);
    info = AskRestServer(options->http, target.endpoints, key, options->request.model);
  }
  if (!info.ok()) {
    return absl::Status(info.status().code(), absl::StrCat("the server at ", options->http.authority, ": ",
                                                           info.status().message()));
  }
  target.info = *std::move(info);
  options->request.model = target.info.model;
  if (options->has_metrics) {
    auto endpoints = Resolve(options->metrics);
    if (!endpoints.ok()) return endpoints.status();
    target.metrics_endpoints = *std::move(endpoints);
  }
  WorkloadOptions& work = options->work;
  if (work.vocab_size == 0) work.vocab_size = target.info.vocab_size;
  // As text an id stands for a word, whatever the vocabulary is.
  if (work.vocab_size == 0 && options->request.prompt_as_text) work.vocab_size = 1 << 16;
  if (work.vocab_size < 2)
    return absl::InvalidArgumentError(
        "--vocab_size: the server does not say how large its vocabulary is: give it");
  if (options->max_context > 0) {
    if (absl::Status fit = FitWork(options->max_context, &work); !fit.ok())
      return absl::InvalidArgumentError(absl::StrCat("--max_context: ", fit.message()));
  }
  if (const int64_t longest = LongestRequest(work);
      target.info.max_model_len > 0 && longest > target.info.max_model_len) {
    return absl::InvalidArgumentError(
        absl::StrCat("requests may have ", longest, " tokens, the server takes ", target.info.max_model_len,
                     ": --max_context ", target.info.max_model_len, " scales them down"));
  }
  return target;
}

Run RunOnce(const Options& options, const Target& target, double rate, Progress* progress,
            bool* interrupted) {
  Run run;
  run.options = options.flags;
  run.server = options.grpc ? absl::StrCat("grpc://", options.grpc_address)
                            : absl::StrCat("http://", options.http.authority, options.http.path);
  run.model = target.info.model;
  if (rate > 0) run.offered_rate = rate;
  run.num_users = options.load.num_users;
  run.warmup = options.warmup;
  run.cooldown = options.cooldown;

  boost::asio::io_context io(1);
  const Clock clock(kLeadSeconds);
  run.started_unix_ms = absl::ToUnixMillis(absl::Now()) + static_cast<int64_t>(kLeadSeconds * 1e3);
  std::unique_ptr<MetricsScraper> scraper;
  if (options.has_metrics) {
    scraper = std::make_unique<MetricsScraper>(&io, clock, options.metrics, target.metrics_endpoints,
                                               options.metrics_interval);
    if (absl::Status metrics = scraper->ScrapeNow(); metrics.ok()) {
      scraper->Start();
    } else {
      progress->Note(absl::StrCat("no metrics of the server are read: ", metrics.message()));
      scraper.reset();
    }
  }
  std::unique_ptr<Client> client = MakeClient(options, target, &io, clock);
  Workload workload(options.work);
  Runner runner(&io, clock, client.get(), &workload, MakeArrivals(options, rate), options.load);

  boost::asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code error, int) {
    if (error) return;
    *interrupted = true;
    signals.clear();  // a second one ends this process
    runner.Interrupt();
  });
  boost::asio::steady_timer tick(io);
  std::function<void()> show = [&] {
    progress->Update(runner.live());
    tick.expires_after(Clock::ToDuration(kProgressSeconds));
    tick.async_wait([&show](boost::system::error_code error) {
      if (!error) show();
    });
  };
  show();
  runner.Execute(&run);
  progress->Update(runner.live());
  if (scraper != nullptr) {
    scraper->Stop();
    scraper->ScrapeNow().IgnoreError();  // a server that died under the load has no last reading
    run.server_metrics = scraper->TakeSamples();
  }
  run.client.failure = JudgeHealth(run.client, options.health, options.grpc ? 2 : 1);
  return run;
}

std::vector<Run> RunAll(const Options& options, const Target& target, Progress* progress) {
  bool interrupted = false;
  Options of_run = options;
  std::vector<Run> runs;
  const auto run_at = [&](double rate, const std::string& label) -> std::optional<Run> {
    if (interrupted) return std::nullopt;
    progress->Start(label);
    Run run = RunOnce(of_run, target, rate, progress, &interrupted);
    ++of_run.work.run;
    progress->Finish();
    run.title = !options.title.empty() ? options.title : label.empty() ? DescribeLoad(options) : label;
    return run;
  };
  if (options.search_rates) {
    SearchOptions search;
    search.first_rate = options.rates[0];
    search.share = options.search_share;
    return SearchRates(search, options.slo, [&](double rate) {
      return run_at(rate, absl::StrCat("search, ", rate, " requests/s"));
    });
  }
  if (options.rates.empty()) return {*run_at(0, "")};
  for (size_t i = 0; i < options.rates.size(); ++i) {
    const std::string label = options.rates.size() == 1 ? ""
                                                        : absl::StrCat(i + 1, "/", options.rates.size(), ", ",
                                                                       options.rates[i], " requests/s");
    std::optional<Run> run = run_at(options.rates[i], label);
    if (run.has_value()) runs.push_back(*std::move(run));
  }
  return runs;
}

}  // namespace sessa::loadtest
