// See sweep.h.
#include "loadtest/sweep.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "loadtest/summary.h"

namespace sessa::loadtest {
namespace {

int64_t TokensWithin(const RequestRecord& request, double begin, double end) {
  int64_t count = 0;
  for (const TokenEvent& event : request.events) {
    if (event.at >= begin && event.at < end) count += event.num_tokens;
  }
  return count;
}

}  // namespace

double ServedShare(const Run& run, const Slo& slo) {
  double last = 0;
  for (const RequestRecord& request : run.requests) {
    if (!request.is_probe) last = std::max(last, request.scheduled);
  }
  double asked = 0, served = 0;
  for (const RequestRecord& request : run.requests) {
    if (request.is_probe) continue;
    if (slo.IsSet()) {
      if (request.scheduled < run.warmup || request.outcome == Outcome::kCancelled) continue;
      ++asked;
      served += request.outcome == Outcome::kOk && KeepsSlo(request, slo);
      continue;
    }
    if (request.scheduled >= last / 2 && request.scheduled < last) {
      asked += request.outcome == Outcome::kCancelled
                   ? TokensWithin(request, 0, std::numeric_limits<double>::infinity())
                   : request.output_tokens;
    }
    served += static_cast<double>(TokensWithin(request, last / 2, last));
  }
  return asked > 0 ? std::min(1.0, served / asked) : 0;
}

std::vector<Run> SearchRates(const SearchOptions& options, const Slo& slo,
                             const std::function<std::optional<Run>(double rate)>& make_run) {
  std::vector<Run> runs;
  double follows = 0, lags = 0;  // the highest rate that it followed, the lowest that it did not; 0: none yet
  double rate = options.first_rate;
  while (static_cast<int>(runs.size()) < options.max_runs) {
    std::optional<Run> run = make_run(rate);
    if (!run.has_value()) break;
    const bool followed = ServedShare(*run, slo) >= options.share && run->client.failure.empty();
    (followed ? follows : lags) = rate;
    runs.push_back(*std::move(run));
    if (follows > 0 && lags > 0 && lags <= follows * (1 + options.precision)) break;
    if (follows == 0 && lags < options.first_rate / 50) break;  // it serves nothing
    rate = lags == 0 ? follows * 2 : follows == 0 ? lags / 2 : std::sqrt(follows * lags);
  }
  std::stable_sort(runs.begin(), runs.end(),
                   [](const Run& a, const Run& b) { return a.offered_rate < b.offered_rate; });
  return runs;
}

}  // namespace sessa::loadtest
