// Records reduced to what is drawn; see plot_data.h.
#include "loadtest/plot_data.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/types/span.h"
#include "loadtest/definitions.h"
#include "loadtest/json_report.h"

namespace sessa::loadtest {
namespace {

namespace json = boost::json;

// Axes are logarithmic, and tokens that one read brought are zero seconds apart: what is shorter is drawn at
// this.
constexpr double kLeast = 1e-5;

// Five digits are more than a plot shows, and halve the file.
json::value Rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return JsonNumber(value);
  const double scale = std::pow(10, 4 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

json::array ToJson(absl::Span<const double> values) {
  json::array out;
  out.reserve(values.size());
  for (double value : values) out.push_back(Rounded(value));
  return out;
}

json::object QuantileCurve(const char* key, const std::vector<double>& sorted) {
  // Up to the last quantile that a value of its own stands for: the largest of n is at nines = log10(n).
  const double last = std::log10(sorted.size());
  std::vector<double> nines, values;
  for (int i = 0; i <= last * kQuantilesPerDecade; ++i)
    nines.push_back(static_cast<double>(i) / kQuantilesPerDecade);
  for (double nine : nines) values.push_back(std::max(Quantile(sorted, 1 - std::pow(10, -nine)), kLeast));
  nines.push_back(last);
  values.push_back(std::max(sorted.back(), kLeast));
  return {{"key", key}, {"count", sorted.size()}, {"nines", ToJson(nines)}, {"values", ToJson(values)}};
}

json::object Histogram(const char* key, const std::vector<double>& sorted) {
  const double low = std::log(std::max(sorted.front(), kLeast));
  const double high = std::max(std::log(std::max(sorted.back(), kLeast)), low + 0.01);
  std::vector<double> edges, shares;
  for (int i = 0; i <= kNumHistogramBins; ++i)
    edges.push_back(std::exp(std::lerp(low, high, 1.0 * i / kNumHistogramBins)));
  auto from = sorted.begin();
  for (int i = 1; i <= kNumHistogramBins; ++i) {
    // The last edge may be rounded to below the largest value.
    const auto to = i < kNumHistogramBins ? std::lower_bound(from, sorted.end(), edges[i]) : sorted.end();
    shares.push_back(static_cast<double>(to - from) / sorted.size());
    from = to;
  }
  return {{"key", key}, {"count", sorted.size()}, {"edges", ToJson(edges)}, {"shares", ToJson(shares)}};
}

json::object Gaps(const std::vector<const RequestRecord*>& requests) {
  std::vector<Gap> gaps;
  for (const RequestRecord* request : requests) {
    ForEachGap(*request, [&](const Gap& gap) { gaps.push_back(gap); });
  }
  json::object out = {{"total", gaps.size()}, {"threshold", 0}};
  if (gaps.size() > kMaxGapPoints) {
    std::nth_element(gaps.begin(), gaps.begin() + kMaxGapPoints - 1, gaps.end(),
                     [](const Gap& a, const Gap& b) { return a.seconds > b.seconds; });
    gaps.resize(kMaxGapPoints);
    out["threshold"] = Rounded(gaps.back().seconds);
  }
  std::sort(gaps.begin(), gaps.end(), [](const Gap& a, const Gap& b) { return a.at < b.at; });
  json::array at, seconds, request;
  for (const Gap& gap : gaps) {
    at.push_back(std::round(gap.at * 1e3) / 1e3);
    seconds.push_back(Rounded(gap.seconds));
    request.push_back(gap.request);
  }
  out["at"] = std::move(at);
  out["seconds"] = std::move(seconds);
  out["request"] = std::move(request);
  return out;
}

// Equal bins from zero to the run's end, of a round length: 1, 2 or 5 times a power of ten.
struct Bins {
  double seconds = 1;
  std::vector<double> middles;

  explicit Bins(double duration) {
    if (!(duration > 0)) return;
    const double least = std::max(duration / kMaxTimeBins, 0.1);
    const double power = std::pow(10, std::floor(std::log10(least)));
    seconds = 10 * power;
    for (double step : {1.0, 2.0, 5.0}) {
      if (step * power >= least * (1 - 1e-9)) {
        seconds = step * power;
        break;
      }
    }
    for (int i = 0; i < std::ceil(duration / seconds - 1e-9); ++i) middles.push_back((i + 0.5) * seconds);
  }

  // The bin of a time; -1: none.
  int Of(double at) const {
    if (!(at >= 0) || middles.empty()) return -1;
    return std::min(static_cast<int>(at / seconds), static_cast<int>(middles.size()) - 1);
  }
};

json::object Timeline(const Run& run) {
  const Bins bins(run.duration);
  const size_t count = bins.middles.size();
  std::vector<double> tokens(count), finished(count), failed(count), in_flight(count);
  auto add = [&](std::vector<double>& values, double at, double amount) {
    if (const int bin = bins.Of(at); bin >= 0) values[bin] += amount / bins.seconds;
  };
  for (const RequestRecord& request : run.requests) {
    if (request.is_probe) continue;
    ForEachArrival(request, [&](double at, double amount) { add(tokens, at, amount); });
    if (request.outcome != Outcome::kCancelled) {
      add(request.outcome == Outcome::kOk ? finished : failed, request.ended, 1);
    }
    if (std::isnan(request.sent)) continue;
    const double end = std::isnan(request.ended) ? run.duration : request.ended;
    for (int bin = bins.Of(request.sent); bin >= 0 && bin <= bins.Of(end); ++bin) {
      const double overlap =
          std::min(end, (bin + 1) * bins.seconds) - std::max(request.sent, bin * bins.seconds);
      in_flight[bin] += std::max(overlap, 0.0) / bins.seconds;
    }
  }
  return {{"bin", bins.seconds},
          {"at", ToJson(bins.middles)},
          {"output_tokens_per_second", ToJson(tokens)},
          {"finished_per_second", ToJson(finished)},
          {"failed_per_second", ToJson(failed)},
          {"in_flight", ToJson(in_flight)}};
}

// Samples that are fewer than the bins stay as they are.
json::value Server(const ServerSummary& server, double duration) {
  if (server.num_samples == 0) return nullptr;
  const Bins bins(duration);
  const bool reduce = server.times.size() > kMaxTimeBins && !bins.middles.empty();
  json::array series;
  for (const ServerSeries& one : server.series) {
    if (std::all_of(one.values.begin(), one.values.end(), [](double value) { return std::isnan(value); }))
      continue;
    std::vector<double> mean = one.values, max = one.values;
    if (reduce) {
      std::vector<double> sum(bins.middles.size()), count(bins.middles.size());
      max.assign(bins.middles.size(), kNever);
      for (size_t i = 0; i < one.values.size(); ++i) {
        const int bin = bins.Of(server.times[i]);
        if (bin < 0 || std::isnan(one.values[i])) continue;
        sum[bin] += one.values[i];
        count[bin] += 1;
        if (!(one.values[i] <= max[bin])) max[bin] = one.values[i];
      }
      mean.clear();
      for (size_t bin = 0; bin < sum.size(); ++bin) mean.push_back(sum[bin] / count[bin]);
    }
    series.push_back({{"key", one.key}, {"label", one.label}, {"mean", ToJson(mean)}, {"max", ToJson(max)}});
  }
  return {{"bin", reduce ? bins.seconds : 0},
          {"at", ToJson(reduce ? bins.middles : server.times)},
          {"series", std::move(series)}};
}

}  // namespace

json::object PlotData(const RunReport& report) {
  std::vector<const RequestRecord*> measured;
  for (const RequestRecord& request : report.run->requests) {
    if (!request.is_probe && report.summary.window.Has(request.scheduled)) measured.push_back(&request);
  }
  json::array quantiles, histograms;
  for (Latency which : {Latency::kTtft, Latency::kItl, Latency::kTpot, Latency::kE2e}) {
    const char* key = LatencyDefinitions()[static_cast<int>(which)].key;
    const std::vector<double> sorted = SortedLatencies(measured, which);
    if (sorted.empty()) continue;
    quantiles.push_back(QuantileCurve(key, sorted));
    histograms.push_back(Histogram(key, sorted));
  }
  return {{"quantiles", std::move(quantiles)},
          {"histograms", std::move(histograms)},
          {"gaps", Gaps(measured)},
          {"timeline", Timeline(*report.run)},
          {"server", Server(report.server, report.run->duration)}};
}

}  // namespace sessa::loadtest
