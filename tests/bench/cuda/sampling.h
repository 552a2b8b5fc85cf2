// How often a benchmark runs: enough for a median where runs are short, little where they are long. Pure:
// tested without a GPU.
#pragma once

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace sessa {

inline constexpr double kSampleSeconds = 1e-3;  // a sample takes so long, or kMaxRuns runs
inline constexpr double kCaseSeconds = 0.4;     // all samples of a benchmark, but for kMinSamples
inline constexpr int kWarmRuns = 4;             // the last says how long a run takes
inline constexpr int kMinSamples = 2, kMaxSamples = 11, kMaxRuns = 32;

// seconds_of_one(runs) runs the benchmark so often and says how long one run took.
absl::StatusOr<std::vector<double>> SampleTimes(
    absl::FunctionRef<absl::StatusOr<double>(int runs)> seconds_of_one);

}  // namespace sessa
