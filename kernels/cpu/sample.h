// Backend::Sample for one row, on the host.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/sample.h"

namespace sessa::cpu {

// Not thread-safe: keeps scratch of the vocabulary's size, so that a step allocates nothing.
class RowSampler {
 public:
  // logits [V]; edits: of this row alone. The token, as Backend::Sample.
  int32_t Sample(absl::Span<const float> logits, const SampleRow& row, absl::Span<const SampleEdit> edits);

 private:
  using Candidate = std::pair<float, int32_t>;  // score, id

  int32_t Draw(const SampleRow& row, float best);
  // The worst of the `count` best scores, or of the fewest best whose weights reach `sum`, whatever comes
  // first.
  Candidate Cut(float best, int count, double sum);

  std::vector<float> scores_;   // [V]
  std::vector<float> weights_;  // [V], exp((score - best) / temperature), 0 of what is excluded
  std::vector<Candidate> candidates_;
};

}  // namespace sessa::cpu
