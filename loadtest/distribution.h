// Order statistics of latencies: exact, by sorting all the values. Called by the summaries, and by the plots.
#pragma once

#include <cstdint>
#include <vector>

#include "loadtest/record.h"

namespace sessa::loadtest {

// Seconds, or whatever the values are; all NaN when count is 0.
struct Distribution {
  int64_t count = 0;
  double mean = kNever, p50 = kNever, p90 = kNever, p95 = kNever, p99 = kNever, p999 = kNever, max = kNever;
};

// Value at quantile q in [0, 1], linear between the two neighbouring ranks: position q * (n - 1) among the
// sorted values, as numpy.percentile does by default. NaN of nothing. Requires: `sorted` is, and has no NaN.
double Quantile(const std::vector<double>& sorted, double q);

// Requires: as Quantile.
Distribution Describe(const std::vector<double>& sorted);

}  // namespace sessa::loadtest
