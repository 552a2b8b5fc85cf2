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

#include "loadtest/distribution.h"
#include "loadtest/record.h"
#include "loadtest/slo.h"

namespace sessa::loadtest {

enum class Latency { kTtft, kTtftFromSend, kTpot, kItl, kE2e, kE2eFromSend, kQueue, kSendLag };
inline constexpr int kNumLatencies = 8;

struct Gap {
  double seconds = kNever;
  double at = kNever;  // when it ended
  int64_t request = -1;
};

// Figures of some of the requests. Shares are in [0, 1]; NaN where there is nothing to tell.
struct GroupSummary {
  std::string name;  // the kind or tenant; empty: all
  int64_t num_requests = 0;
  std::array<int64_t, kNumOutcomes> outcomes = {};    // by Outcome
  std::array<Distribution, kNumLatencies> latencies;  // by Latency; seconds
  Gap worst_gap;

  double requests_per_second = kNever;  // that ended well
  double output_tokens_per_second = kNever;
  double input_tokens_per_second = kNever;
  double goodput = kNever;     // requests/s that kept the SLO; NaN without one
  double good_share = kNever;  // of those not cancelled on purpose
  double error_share = kNever;
  double output_tokens = 0, input_tokens = 0, cached_tokens = 0;  // of the requests scheduled in the window
  double cached_share = kNever;       // of the input tokens of those whose server told
  double multi_token_share = kNever;  // of events
  double mean_concurrency = kNever, max_concurrency = kNever;  // requests in flight

  const Distribution& latency(Latency which) const { return latencies[static_cast<int>(which)]; }
};

struct Summary {
  double window_begin = 0, window_end = 0;   // seconds of the run
  int64_t num_outside = 0;                   // requests scheduled outside of the window
  GroupSummary all;                          // all but the probes
  std::vector<GroupSummary> kinds, tenants;  // by name; empty where there is but one
  GroupSummary probes;                       // num_requests 0: no probe
};

Summary Summarize(const Run& run, const Slo& slo);

// The parts of it, which the plots use too. NaN: it did not come to that.
double FirstToken(const RequestRecord& request);
double LastToken(const RequestRecord& request);
int64_t OutputTokens(const RequestRecord& request);             // the server's count, else those that came
int64_t InputTokens(const RequestRecord& request);              // the server's count, else those asked for
double LatencyOf(const RequestRecord& request, Latency which);  // not kItl
bool KeepsSlo(const RequestRecord& request, const Slo& slo);
bool InWindow(const Summary& summary, double at);

// Of a request, in order of time: the gaps between events that brought tokens.
std::vector<Gap> Gaps(const RequestRecord& request);

}  // namespace sessa::loadtest
