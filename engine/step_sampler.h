// From a step's logits to the results of its sequences: which rows want logits, the draw on the device, and
// the log-probabilities that somebody asked for. Of up to two steps that are under way, each is collected in
// its turn, by what was noted when it was enqueued: requests may have ended since. Owned by Workers; rank 0's
// thread enqueues.
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
  const std::vector<int32_t>& logit_rows() const { return steps_[now_].logit_rows; }
  // After it: logits [logit_rows().size(), V], in device memory.
  void Enqueue(const StepPlan& plan, Matrix logits, Backend* backend);
  // Of the oldest step that was not collected, after the backend has waited for it: one result for each
  // sequence. Drafts are judged here: what was sampled behind a wrong one is dropped.
  void Collect(const StepPlan& plan, std::vector<SequenceResult>* results);

 private:
  struct Score {
    int num_top = -1;    // -1: nobody wants the row's logits
    int32_t token = -1;  // of a prompt's row: the one that follows
  };
  struct Step {
    std::vector<int32_t> logit_rows;
    std::vector<Score> scores;    // [logit_rows.size()]
    std::vector<float> logits;    // [.., V], of those that somebody wants
    std::vector<int32_t> tokens;  // of the rows that are sampled
  };

  const int vocab_size_;
  Sampler sampler_;
  Step steps_[2];  // by turns
  int now_ = 0, next_collected_ = 0;
  std::vector<SampleRow> sample_rows_;  // scratch of Enqueue, as edits_
  std::vector<SampleEdit> edits_;
  Buffer device_tokens_;  // [max_rows], of the last step
};

}  // namespace sessa
