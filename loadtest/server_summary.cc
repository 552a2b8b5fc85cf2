// The server's own metrics over a run; see server_summary.h.
#include "loadtest/server_summary.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sessa::loadtest {
namespace {

// The same thing under its names: this server's, then vLLM's of today and of before. The first that is there
// counts.
using Names = absl::Span<const absl::string_view>;

constexpr absl::string_view kRunning[] = {"sessa_num_requests_running", "vllm:num_requests_running"};
constexpr absl::string_view kWaiting[] = {"sessa_num_requests_waiting", "vllm:num_requests_waiting"};
constexpr absl::string_view kUsage[] = {"sessa_state_cache_usage_ratio", "vllm:kv_cache_usage_perc",
                                        "vllm:gpu_cache_usage_perc"};
constexpr absl::string_view kQueries[] = {"sessa_prefix_cache_queries_total",
                                          "vllm:prefix_cache_queries_total",
                                          "vllm:gpu_prefix_cache_queries_total"};
constexpr absl::string_view kHits[] = {"sessa_prefix_cache_hits_total", "vllm:prefix_cache_hits_total",
                                       "vllm:gpu_prefix_cache_hits_total"};
constexpr absl::string_view kPreemptions[] = {"sessa_num_preemptions_total", "vllm:num_preemptions_total"};
constexpr absl::string_view kRecomputed[] = {"sessa_recomputed_tokens_total"};
constexpr absl::string_view kPromptTokens[] = {"sessa_prompt_tokens_total", "vllm:prompt_tokens_total"};
constexpr absl::string_view kGenerationTokens[] = {"sessa_generation_tokens_total",
                                                   "vllm:generation_tokens_total"};
constexpr absl::string_view kStepSeconds[] = {"sessa_step_duration_seconds"};
constexpr absl::string_view kStepTokens[] = {"sessa_iteration_tokens", "vllm:iteration_tokens_total"};

// The value of label `le`, if the series has one.
std::optional<double> UpperBound(absl::string_view labels) {
  for (size_t at = 0; (at = labels.find("le=\"", at)) != absl::string_view::npos; ++at) {
    if (labels[at - 1] != '{' && labels[at - 1] != ',') continue;  // "scale=" is another label
    absl::string_view text = labels.substr(at + 4);
    double bound;
    if (!absl::SimpleAtod(text.substr(0, text.find('"')), &bound)) return std::nullopt;
    return bound;
  }
  return std::nullopt;
}

// Visits the series called `name`, whatever its labels: map order puts "name" and "name{...}" where
// lower_bound finds them.
template <typename Visit>  // void(labels, value); labels are "" or "{...}"
void ForEachSeries(const MetricsSample& sample, absl::string_view name, Visit visit) {
  if (auto it = sample.values.find(std::string(name)); it != sample.values.end()) visit("", it->second);
  const std::string prefix = absl::StrCat(name, "{");
  for (auto it = sample.values.lower_bound(prefix); it != sample.values.end(); ++it) {
    if (!absl::StartsWith(it->first, prefix)) break;
    visit(absl::string_view(it->first).substr(name.size()), it->second);
  }
}

// Over the labels; NaN when no series has any of the names.
double Read(const MetricsSample& sample, Names names, bool mean, absl::string_view suffix = "") {
  for (absl::string_view name : names) {
    double sum = 0;
    int count = 0;
    ForEachSeries(sample, absl::StrCat(name, suffix), [&](absl::string_view, double value) {
      sum += value;
      ++count;
    });
    if (count > 0) return mean ? sum / count : sum;
  }
  return kNever;
}

class Deltas {
 public:
  // The samples from which on and to which counters are compared.
  Deltas(const std::vector<MetricsSample>& samples, const Window& window) : begin_(samples.begin()) {
    while (std::next(begin_) != samples.end() && std::next(begin_)->at <= window.begin) ++begin_;
    end_ = begin_;
    while (end_ != samples.end() && end_->at < window.end) ++end_;
    if (end_ != samples.end()) ++end_;
  }

  double seconds() const { return std::prev(end_)->at - begin_->at; }

  double Growth(Names names, absl::string_view suffix = "") const {
    double growth = 0, previous = Read(*begin_, names, false, suffix);
    if (std::next(begin_) == end_) return kNever;
    for (auto sample = std::next(begin_); sample != end_; ++sample) {
      const double value = Read(*sample, names, false, suffix);
      if (std::isnan(value)) continue;
      // A series that was not there yet began from zero, as one does whose server started again.
      growth += value >= previous ? value - previous : value;
      previous = value;
    }
    return std::isnan(previous) ? kNever : growth;
  }

  // As Prometheus' histogram_quantile: linear within a bucket; what is beyond the last bound is said to be at
  // it.
  double HistogramQuantile(Names names, double q) const {
    std::map<double, double> cumulative;  // by upper bound
    for (absl::string_view name : names) {
      auto add = [&](const MetricsSample& sample, double sign) {
        ForEachSeries(sample, absl::StrCat(name, "_bucket"), [&](absl::string_view labels, double value) {
          if (auto bound = UpperBound(labels)) cumulative[*bound] += sign * value;
        });
      };
      add(*begin_, -1);
      add(*std::prev(end_), 1);
      if (!cumulative.empty()) break;
    }
    if (cumulative.empty() || !(cumulative.rbegin()->second > 0)) return kNever;
    const double rank = q * cumulative.rbegin()->second;
    double lower_bound = 0, lower_count = 0;
    for (const auto& [bound, count] : cumulative) {
      if (count >= rank) {
        if (std::isinf(bound)) return lower_bound;
        return lower_bound + (bound - lower_bound) * (rank - lower_count) / (count - lower_count);
      }
      lower_bound = bound;
      lower_count = count;
    }
    return lower_bound;
  }

 private:
  std::vector<MetricsSample>::const_iterator begin_, end_;  // [begin_, end_)
};

struct MeanAndMax {
  double mean = kNever, max = kNever;
};

MeanAndMax OverWindow(const std::vector<double>& times, const std::vector<double>& values,
                      const Window& window) {
  double sum = 0, max = kNever;
  int count = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    if (!window.Has(times[i]) || std::isnan(values[i])) continue;
    sum += values[i];
    ++count;
    if (!(values[i] <= max)) max = values[i];
  }
  return count > 0 ? MeanAndMax{sum / count, max} : MeanAndMax{};
}

std::vector<ServerFigure> Figures(const ServerSummary& summary, const Deltas& deltas, const Window& window) {
  const MeanAndMax running = OverWindow(summary.times, summary.series[0].values, window);
  const MeanAndMax waiting = OverWindow(summary.times, summary.series[1].values, window);
  const MeanAndMax usage = OverWindow(summary.times, summary.series[2].values, window);

  auto per_second = [&](Names names) { return deltas.Growth(names) / deltas.seconds(); };
  auto mean = [&](Names names) { return deltas.Growth(names, "_sum") / deltas.Growth(names, "_count"); };
  return {
      {"running_mean", "Running, mean", Unit::kRequests, "Sequences that ran, averaged over the samples.",
       running.mean},
      {"running_max", "Running, max", Unit::kRequests, "The most sequences that ran in a sample.",
       running.max},
      {"waiting_mean", "Waiting, mean", Unit::kRequests, "Sequences that waited, averaged over the samples.",
       waiting.mean},
      {"waiting_max", "Waiting, max", Unit::kRequests, "The most sequences that waited in a sample.",
       waiting.max},
      {"cache_usage_mean", "Cache usage, mean", Unit::kShare,
       "Pages of the cache in use over all, averaged over the samples.", usage.mean},
      {"cache_usage_max", "Cache usage, max", Unit::kShare,
       "The most pages of the cache in use over all in a sample.", usage.max},
      {"cache_hit_tokens", "Cache hits", Unit::kTokens, "Prompt tokens found in the prefix cache.",
       deltas.Growth(kHits)},
      {"cache_hit_share", "Cache hit share", Unit::kShare,
       "Prompt tokens found in the prefix cache over those looked up.",
       deltas.Growth(kHits) / deltas.Growth(kQueries)},
      {"preemptions", "Preemptions", Unit::kCount, "Sequences that gave up their pages to others.",
       deltas.Growth(kPreemptions)},
      {"recomputed_tokens", "Recomputed", Unit::kTokens, "Tokens computed again after preemption.",
       deltas.Growth(kRecomputed)},
      {"step_mean", "Step, mean", Unit::kSeconds, "Time of one engine step, on average.", mean(kStepSeconds)},
      {"step_p99", "Step, p99", Unit::kSeconds,
       "Time of one engine step that 99 % kept, from the buckets of a histogram: exact to its bucket.",
       deltas.HistogramQuantile(kStepSeconds, 0.99)},
      {"step_tokens_mean", "Tokens a step", Unit::kTokens, "Tokens computed in one engine step, on average.",
       mean(kStepTokens)},
      {"prompt_tokens_per_second", "Prompt tokens/s", Unit::kTokensPerSecond,
       "Prompt tokens taken, by the server's count.", per_second(kPromptTokens)},
      {"generation_tokens_per_second", "Generated tokens/s", Unit::kTokensPerSecond,
       "Tokens generated, by the server's count.", per_second(kGenerationTokens)},
  };
}

}  // namespace

ServerSummary SummarizeServer(const std::vector<MetricsSample>& samples, const Window& window) {
  ServerSummary summary;
  if (samples.empty()) return summary;
  summary.series = {{"running", "Running", Unit::kRequests, {}},
                    {"waiting", "Waiting", Unit::kRequests, {}},
                    {"cache_usage", "Cache usage", Unit::kShare, {}}};
  for (const MetricsSample& sample : samples) {
    summary.times.push_back(sample.at);
    summary.series[0].values.push_back(Read(sample, kRunning, false));
    summary.series[1].values.push_back(Read(sample, kWaiting, false));
    summary.series[2].values.push_back(Read(sample, kUsage, true));
  }
  summary.figures = Figures(summary, Deltas(samples, window), window);
  for (ServerFigure& figure : summary.figures) {
    if (!std::isfinite(figure.value))
      figure.value = kNever;  // 0 / 0 and x / 0: nothing was looked up, no step was made
  }
  const bool any = std::any_of(summary.figures.begin(), summary.figures.end(),
                               [](const ServerFigure& figure) { return !std::isnan(figure.value); });
  if (!any) return ServerSummary();
  summary.num_samples = samples.size();
  return summary;
}

}  // namespace sessa::loadtest
