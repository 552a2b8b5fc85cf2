// How long a step will take: a line through what steps took lately. The Scheduler cuts prefill chunks by it,
// so chunk sizes depend on measured time and vary from run to run. Results do not: the kernels give the same
// bits for any chunking. Fed by the engine's warm-up, then by every step.
#pragma once

#include <array>
#include <cstdint>

#include "absl/time/time.h"
#include "engine/step_plan.h"

namespace sessa {

// What the time of a step is made of.
struct StepFeatures {
  int64_t rows = 0;   // all: the weights' work
  int64_t reads = 0;  // tokens whose state is read, once for each block of rows, or for all that share it:
                      // memory traffic
  int64_t pairs = 0;  // sum over the rows of chunks of the tokens each attends to: arithmetic

  void AddDecode(int64_t position) { ++rows, reads += position + 1; }
  // A chunk is computed in blocks that end where a tile of 64 tokens does; each reads the whole past. That
  // costs as much as about four rows' arithmetic, so short blocks deep in a prompt are dear.
  void AddPrefill(int64_t start, int64_t num_rows);
  // A decode that was added becomes a chunk: so many drafts follow it.
  void LengthenDecode(int64_t position, int64_t num_drafts) {
    --rows, reads -= position + 1;
    AddPrefill(position, 1 + num_drafts);
  }
};

StepFeatures FeaturesOf(const StepPlan& plan);

// A non-negative linear model, fitted online: relative least squares over the last ~40 steps (exponential
// forgetting), held near its last values in directions that these steps say nothing about; one wild
// measurement is clipped. It starts pessimistic, so that the first chunks are small. Deterministic in its
// observations. Not thread-safe.
class CostModel {
 public:
  absl::Duration Predict(const StepFeatures& features) const;
  // Steps without rows and durations <= 0 are ignored.
  void Observe(const StepFeatures& features, absl::Duration duration);
  // The most rows, at most max_rows, of one prefill from position `start` that can join a step of `features`
  // and keep it within `limit` as predicted. 0 when none.
  int MaxPrefillRows(const StepFeatures& features, int start, int max_rows, absl::Duration limit) const;

 private:
  static constexpr int kSize = 4;
  using Vector = std::array<double, kSize>;
  static Vector Terms(const StepFeatures& features);  // seconds of each term under the initial coefficients

  Vector coefficients_ = {1, 1, 1, 1};   // relative to the initial ones; >= 0
  std::array<Vector, kSize> gram_ = {};  // forgetting sums of phi phi^T and of phi
  Vector moment_ = {};
};

}  // namespace sessa
