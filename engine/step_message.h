// A StepPlan as words of 32 bits, for ranks in processes of their own: what Model::Forward reads of it, and
// no more, as rank 0 alone samples. In the byte order of the machine; both ends are of one version, which the
// handshake has made sure of. What comes is judged before anything is done with it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/page_geometry.h"
#include "engine/step_plan.h"

namespace sessa {

struct StepMessage {
  StepPlan plan;                    // without what sampling needs
  std::vector<int32_t> logit_rows;  // ascending: the rows whose logits are wanted
};

// What a plan may name, by which a message is judged.
struct StepBounds {
  int vocab_size = 0;
  int max_rows = 0;    // of a step
  int max_tokens = 0;  // of a sequence
  StateSize state;
};

// Replaces what is in `words`.
void EncodeStep(const StepPlan& plan, const std::vector<int32_t>& logit_rows, std::vector<int32_t>* words);
// INVALID_ARGUMENT for whatever a Model could not run; *message is then anything.
absl::Status DecodeStep(absl::Span<const int32_t> words, const StepBounds& bounds, StepMessage* message);

}  // namespace sessa
