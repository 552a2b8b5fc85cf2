// Runs at several rates: listed ones, or a search for the rate at which the server saturates.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "loadtest/record.h"
#include "loadtest/slo.h"

namespace sessa::loadtest {

// The share of the load that the server served, in [0, 1]: with an SLO, of requests that kept it. Without: of
// output tokens asked for by the requests of the second half of the time in which requests were sent, what
// came in that half; a server that follows produces there what is asked for there, one that does not falls
// behind more and more. Failed requests are not served.
double ServedShare(const Run& run, const Slo& slo);

struct SearchOptions {
  double first_rate = 1;
  double share = 0.9;      // served at least, to call it following
  double precision = 0.1;  // of the rate, relative, where the search ends
  int max_runs = 16;
};
// Doubles the rate while the server follows (halves it, if it does not from the start), then bisects. `run`
// makes one; none: the search is to end. The runs by rate.
std::vector<Run> SearchRates(const SearchOptions& options, const Slo& slo,
                             const std::function<std::optional<Run>(double rate)>& run);

}  // namespace sessa::loadtest
