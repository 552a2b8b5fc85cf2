// The feedback recurrence on a GPU: see kernels/feedback.h. Not thread-safe; owned by a CudaBackend.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/step_queue.h"
#include "kernels/feedback.h"

namespace sessa::cuda {

class Feedback final : public FeedbackOps {
 public:
  // What is pointed to must outlive this.
  Feedback(Context* context, DeviceStep* step, StepQueue* queue, Attention* attention, bool batch_invariant)
      : context_(context),
        step_(step),
        queue_(queue),
        attention_(attention),
        batch_invariant_(batch_invariant) {}

  int MaxBlockRows(DType state_dtype) const override {
    return state_dtype != DType::kF32 && !batch_invariant_ ? kMaxPanelQueries : kTileTokens;
  }
  void Append(const AppendCall& forward, const FeedbackRows& rows) override {
    attention_->Append(forward, &rows);
  }
  void AppendStates(Matrix s, int wave, PagedTensor* states) override;
  void Read(const FeedbackReadCall& call) override { attention_->reads()->Run(Plan(call)); }
  void AttendAndRead(const AttendCall& attend, const FeedbackReadCall& read) override {
    attention_->reads()->RunTogether(Plan(read), attention_->Plan(attend));
  }
  void Solve(const FeedbackSolveCall& call) override;

 private:
  PlannedRead Plan(const FeedbackReadCall& call);
  static DeviceStep::WaveKey KeyOf(int wave, const PagedTensor& t) {
    return {wave, t.shape.dim, t.shape.dtype, t.page_size};
  }

  Context* const context_;
  DeviceStep* const step_;
  StepQueue* const queue_;
  Attention* const attention_;
  const bool batch_invariant_;
};

}  // namespace sessa::cuda
