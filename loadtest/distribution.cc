// Order statistics; see distribution.h.
#include "loadtest/distribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sessa::loadtest {

double Quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return kNever;
  const double position = q * (sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], position - below);
}

Distribution Describe(const std::vector<double>& sorted) {
  Distribution d;
  if (sorted.empty()) return d;
  d.count = sorted.size();
  d.mean = std::accumulate(sorted.begin(), sorted.end(), 0.0) / sorted.size();
  d.p50 = Quantile(sorted, 0.5);
  d.p90 = Quantile(sorted, 0.9);
  d.p95 = Quantile(sorted, 0.95);
  d.p99 = Quantile(sorted, 0.99);
  d.p999 = Quantile(sorted, 0.999);
  d.max = sorted.back();
  return d;
}

}  // namespace sessa::loadtest
