// The figures of a run; see summary.h.
#include "loadtest/summary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace sessa::loadtest {
namespace {

using Requests = std::vector<const RequestRecord*>;

double FirstToken(const RequestRecord& request) {
  for (const TokenEvent& event : request.events) {
    if (event.num_tokens > 0) return event.at;
  }
  return kNever;
}

double Tpot(const RequestRecord& request) {
  double first = kNever, last = kNever;
  int num_events = 0;
  for (const TokenEvent& event : request.events) {
    if (event.num_tokens <= 0) continue;
    if (++num_events == 1) first = event.at;
    last = event.at;
  }
  // One event says nothing of the time between tokens, however many it brought.
  if (num_events < 2 || OutputTokens(request) < 2) return kNever;
  return (last - first) / (OutputTokens(request) - 1);
}

// Mean and maximum of requests in flight within the window.
void SetConcurrency(const Requests& requests, const Window& window, GroupSummary& group) {
  std::vector<std::pair<double, int>> changes;
  double busy = 0;
  for (const RequestRecord* request : requests) {
    if (std::isnan(request->sent)) continue;
    const double from = std::max(request->sent, window.begin);
    const double to = std::isnan(request->ended) ? window.end : std::min(request->ended, window.end);
    if (to < from) continue;
    busy += to - from;
    changes.push_back({from, 1});
    changes.push_back({to, -1});
  }
  group.mean_concurrency = busy / window.length();
  std::sort(changes.begin(), changes.end());  // at the same time ends come first
  int now = 0, most = 0;
  for (const auto& [at, change] : changes) most = std::max(most, now += change);
  group.max_concurrency = most;
}

// What happened in the window, of requests scheduled in it or not.
void SetRates(const Requests& requests, const Window& window, const Slo& slo, GroupSummary& group) {
  if (!(window.length() > 0)) return;
  double finished = 0, good = 0, output = 0, input = 0;
  for (const RequestRecord* request : requests) {
    if (request->outcome == Outcome::kOk && window.Has(request->ended)) {
      ++finished;
      good += KeepsSlo(*request, slo);
    }
    if (window.Has(FirstToken(*request))) input += InputTokens(*request);
    ForEachArrival(*request, [&](double at, double tokens) { output += window.Has(at) ? tokens : 0; });
  }
  group.requests_per_second = finished / window.length();
  group.output_tokens_per_second = output / window.length();
  group.input_tokens_per_second = input / window.length();
  if (slo.IsSet()) group.goodput = good / window.length();
  SetConcurrency(requests, window, group);
}

// Sums and shares over the requests scheduled in the window.
void SetTotals(const Requests& requests, const Slo& slo, GroupSummary& group) {
  int64_t good = 0, events = 0, multi_token_events = 0, told_cached = 0;
  for (const RequestRecord* request : requests) {
    ++group.outcomes[static_cast<int>(request->outcome)];
    std::string& error = group.errors[static_cast<int>(request->outcome)];
    if (error.empty()) error = request->error;
    good += KeepsSlo(*request, slo);
    group.output_tokens += OutputTokens(*request);
    group.input_tokens += InputTokens(*request);
    if (request->cached_tokens >= 0) {
      group.cached_tokens = (told_cached == 0 ? 0 : group.cached_tokens) + request->cached_tokens;
      told_cached += InputTokens(*request);
    }
    for (const TokenEvent& event : request->events) {
      events += event.num_tokens > 0;
      multi_token_events += event.num_tokens > 1;
    }
    ForEachGap(*request, [&](const Gap& gap) {
      if (!(gap.seconds <= group.worst_gap.seconds)) group.worst_gap = gap;
    });
  }
  group.num_requests = requests.size();
  const int64_t cancelled = group.outcomes[static_cast<int>(Outcome::kCancelled)];
  const int64_t ok = group.outcomes[static_cast<int>(Outcome::kOk)];
  auto share = [](double part, double whole) { return whole > 0 ? part / whole : kNever; };
  group.error_share = share(group.num_requests - ok - cancelled, group.num_requests);
  if (slo.IsSet()) group.good_share = share(good, group.num_requests - cancelled);
  group.cached_share = share(group.cached_tokens, told_cached);
  group.multi_token_share = share(multi_token_events, events);
}

GroupSummary SummarizeGroup(std::string name, const Requests& requests, const Window& window,
                            const Slo& slo) {
  GroupSummary group;
  group.name = std::move(name);
  Requests measured;
  for (const RequestRecord* request : requests) {
    if (window.Has(request->scheduled)) measured.push_back(request);
  }
  SetTotals(measured, slo, group);
  SetRates(requests, window, slo, group);
  for (int i = 0; i < kNumLatencies; ++i) {
    group.latencies[i] = Describe(SortedLatencies(measured, static_cast<Latency>(i)));
  }
  return group;
}

std::vector<GroupSummary> SummarizeBy(std::string RequestRecord::*name, const Requests& requests,
                                      const Window& window, const Slo& slo) {
  std::map<std::string, Requests> by_name;
  for (const RequestRecord* request : requests) by_name[request->*name].push_back(request);
  std::vector<GroupSummary> groups;
  if (by_name.size() < 2) return groups;
  for (const auto& [group, members] : by_name) groups.push_back(SummarizeGroup(group, members, window, slo));
  return groups;
}

}  // namespace

Window WindowOf(const Run& run) {
  Window window{run.warmup, run.duration};
  if (run.cooldown > 0) {
    double last = 0;
    for (const RequestRecord& request : run.requests) {
      if (!request.is_probe && request.scheduled > last) last = request.scheduled;
    }
    window.end = last - run.cooldown;
  }
  return window;
}

double LatencyOf(const RequestRecord& request, Latency which) {
  const bool finished = request.outcome == Outcome::kOk;
  switch (which) {
    case Latency::kTtft: return FirstToken(request) - request.scheduled;
    case Latency::kTtftFromSend: return FirstToken(request) - request.sent;
    case Latency::kTpot: return finished ? Tpot(request) : kNever;
    case Latency::kE2e: return finished ? request.ended - request.scheduled : kNever;
    case Latency::kE2eFromSend: return finished ? request.ended - request.sent : kNever;
    case Latency::kQueue: return request.queue_seconds;
    case Latency::kSendLag: return request.sent - request.scheduled;
    case Latency::kItl: break;
  }
  return kNever;
}

int64_t OutputTokens(const RequestRecord& request) {
  if (request.completion_tokens >= 0) return request.completion_tokens;
  int64_t sum = 0;
  for (const TokenEvent& event : request.events) sum += event.num_tokens;
  return sum;
}

int64_t InputTokens(const RequestRecord& request) {
  return request.prompt_tokens >= 0 ? request.prompt_tokens : request.input_tokens;
}

bool KeepsSlo(const RequestRecord& request, const Slo& slo) {
  if (request.outcome != Outcome::kOk) return false;
  double longest_gap = 0;
  ForEachGap(request, [&](const Gap& gap) { longest_gap = std::max(longest_gap, gap.seconds); });
  const double tpot = LatencyOf(request, Latency::kTpot);
  // Written so that a NaN bound (not asked for) is kept, and a NaN latency is not, save TPOT's of one event.
  auto exceeds = [](double value, double bound) { return !std::isnan(bound) && !(value <= bound); };
  return !exceeds(LatencyOf(request, Latency::kTtft), slo.ttft) && !(tpot > slo.tpot) &&
         !(longest_gap > slo.gap) && !exceeds(LatencyOf(request, Latency::kE2e), slo.e2e);
}

void ForEachGap(const RequestRecord& request, absl::FunctionRef<void(const Gap&)> visit) {
  double previous = kNever;
  for (const TokenEvent& event : request.events) {
    if (event.num_tokens <= 0 || std::isnan(event.at)) continue;
    if (!std::isnan(previous)) visit(Gap{event.at - previous, event.at, request.index});
    previous = event.at;
  }
}

void ForEachArrival(const RequestRecord& request, absl::FunctionRef<void(double at, double tokens)> visit) {
  int64_t seen = 0;
  for (const TokenEvent& event : request.events) seen += event.num_tokens;
  const double total = OutputTokens(request);
  if (seen == 0) {
    if (total > 0) visit(request.ended, total);  // not streamed
    return;
  }
  for (const TokenEvent& event : request.events) {
    if (event.num_tokens > 0) visit(event.at, event.num_tokens * total / seen);
  }
}

std::vector<double> SortedLatencies(const std::vector<const RequestRecord*>& requests, Latency which) {
  std::vector<double> values;
  for (const RequestRecord* request : requests) {
    if (which == Latency::kItl) {
      ForEachGap(*request, [&](const Gap& gap) { values.push_back(gap.seconds); });
    } else if (const double value = LatencyOf(*request, which); !std::isnan(value)) {
      values.push_back(value);
    }
  }
  std::sort(values.begin(), values.end());
  return values;
}

Summary Summarize(const Run& run, const Slo& slo) {
  Summary summary;
  summary.window = WindowOf(run);
  Requests load, probes;
  for (const RequestRecord& request : run.requests) {
    (request.is_probe ? probes : load).push_back(&request);
    summary.num_outside += !request.is_probe && !summary.window.Has(request.scheduled);
  }
  summary.all = SummarizeGroup("", load, summary.window, slo);
  summary.kinds = SummarizeBy(&RequestRecord::kind, load, summary.window, slo);
  summary.tenants = SummarizeBy(&RequestRecord::tenant, load, summary.window, slo);
  summary.probes = SummarizeGroup("probe", probes, summary.window, slo);
  return summary;
}

}  // namespace sessa::loadtest
