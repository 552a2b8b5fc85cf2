// The figures of a run: latencies, rates, errors, of all requests and of each kind and tenant. Computed from
// the records once the run is over; what each figure means stands in definitions.h, beside its name.
//
// A window bounds what is summarised: from `warmup` to the last scheduled time less `cooldown`; without a
// cool-down to the run's end. Latencies, errors and shares are of the requests *scheduled* in the window;
// rates count what *happened* in it (tokens that came, requests that ended), so they need no correction at
// its edges.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "loadtest/distribution.h"
#include "loadtest/record.h"
#include "loadtest/slo.h"

namespace sessa::loadtest {

enum class Latency { kTtft, kTtftFromSend, kTpot, kItl, kE2e, kE2eFromSend, kQueue, kSendLag };
inline constexpr int kNumLatencies = 8;

// The time between two events that brought tokens.
struct Gap {
  double seconds = kNever;
  double at = kNever;  // when it ended
  int64_t request = -1;
};

// Seconds of the run.
struct Window {
  double begin = 0, end = 0;

  double length() const { return end - begin; }
  bool Has(double at) const { return begin <= at && at <= end; }  // NaN: no
};

// Figures of some of the requests. Shares are in [0, 1]; NaN where there is nothing to tell.
struct GroupSummary {
  std::string name;  // the kind or tenant; empty: all
  int64_t num_requests = 0;
  std::array<int64_t, kNumOutcomes> outcomes = {};    // by Outcome
  std::array<std::string, kNumOutcomes> errors;       // by Outcome: what the first such request was told
  std::array<Distribution, kNumLatencies> latencies;  // by Latency; seconds
  Gap worst_gap;

  double requests_per_second = kNever;
  double goodput = kNever;
  double good_share = kNever;  // NaN without an SLO, as goodput is
  double error_share = kNever;
  double output_tokens_per_second = kNever;
  double input_tokens_per_second = kNever;
  double output_tokens = 0, input_tokens = 0;
  double cached_tokens = kNever, cached_share = kNever;  // NaN: the server says nothing of it
  double mean_concurrency = kNever, max_concurrency = kNever;
  double multi_token_share = kNever;

  const Distribution& latency(Latency which) const { return latencies[static_cast<int>(which)]; }
};

struct Summary {
  Window window;
  int64_t num_outside = 0;                   // requests of the load that were scheduled outside of the window
  GroupSummary all;                          // all but the probes
  std::vector<GroupSummary> kinds, tenants;  // by name; empty where there is but one
  GroupSummary probes;                       // num_requests 0: no probe
};

Summary Summarize(const Run& run, const Slo& slo);

// What it is made of, and the plots too. NaN: it did not come to that.
Window WindowOf(const Run& run);
double LatencyOf(const RequestRecord& request, Latency which);  // Requires: which != kItl
int64_t OutputTokens(const RequestRecord& request);             // the server's count, else those that came
int64_t InputTokens(const RequestRecord& request);              // the server's count, else those asked for
bool KeepsSlo(const RequestRecord& request, const Slo& slo);
void ForEachGap(const RequestRecord& request, absl::FunctionRef<void(const Gap&)> visit);
// Tokens as they came, in such parts that they sum to OutputTokens.
void ForEachArrival(const RequestRecord& request, absl::FunctionRef<void(double at, double tokens)> visit);
// Those of the requests that came to it.
std::vector<double> SortedLatencies(const std::vector<const RequestRecord*>& requests, Latency which);

}  // namespace sessa::loadtest
