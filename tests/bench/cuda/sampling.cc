#include "tests/bench/cuda/sampling.h"

#include <algorithm>

namespace sessa {

absl::StatusOr<std::vector<double>> SampleTimes(
    absl::FunctionRef<absl::StatusOr<double>(int runs)> seconds_of_one) {
  std::vector<double> samples;
  auto once = seconds_of_one(1);
  if (once.ok() && *once >= kCaseSeconds) {
    samples.push_back(*once);  // beside which what a first run loads and allocates is nothing
  }
  // A decode step's scratch grows in the first run, so the second is new to its graphs, and the third is
  // captured.
  for (int i = 1; once.ok() && i < kWarmRuns && samples.empty(); ++i) once = seconds_of_one(1);
  if (!once.ok()) return once.status();
  const int runs = static_cast<int>(std::clamp(kSampleSeconds / std::max(*once, 1e-9), 1.0, 1.0 * kMaxRuns));
  for (double spent = 0;
       samples.size() < kMinSamples || (samples.size() < kMaxSamples && spent < kCaseSeconds);) {
    auto seconds = seconds_of_one(runs);
    if (!seconds.ok()) return seconds.status();
    samples.push_back(*seconds);
    spent += *seconds * runs;
  }
  return samples;
}

}  // namespace sessa
