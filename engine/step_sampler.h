// From a step's logits to the results of its sequences: which rows want logits, the draw on the device, and
// the log-probabilities that somebody asked for. Owned by Workers; rank 0's thread enqueues.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/sampler.h"
#include "engine/step_plan.h"
#include "kernels/backend.h"

namespace sessa {

class StepSampler {
 public:
  StepSampler(int vocab_size, const std::vector<int32_t>& eos_token_ids)
      : vocab_size_(vocab_size), sampler_(vocab_size, eos_token_ids) {}

  absl::Status Allocate(int max_rows, Backend* backend);
  // Before the forward pass: which of the plan's rows want logits.
  void Begin(const StepPlan& plan);
  const std::vector<int32_t>& logit_rows() const { return logit_rows_; }
  // After it: logits [logit_rows().size(), V], in device memory.
  void Enqueue(const StepPlan& plan, Matrix logits, Backend* backend);
  // After the backend's Synchronize: one result for each sequence. Drafts are judged here: what was sampled
  // behind a wrong one is dropped.
  void Collect(const StepPlan& plan, std::vector<SequenceResult>* results);

 private:
  const int vocab_size_;
  Sampler sampler_;
  std::vector<int32_t> logit_rows_;     // of the plan in execution, as all below
  std::vector<SampleRow> sample_rows_;  // of the rows that are sampled
  std::vector<SampleEdit> edits_;
  std::vector<int32_t> tokens_;     // [sample_rows_.size()]
  std::vector<bool> wants_logits_;  // [logit_rows_.size()]
  std::vector<float> logits_;       // [.., V], of those that somebody wants
  Buffer device_tokens_;            // [max_rows]
};

}  // namespace sessa
