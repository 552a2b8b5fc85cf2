// Causal attention on a GPU: appends the step's rows and reads them back, as the functions of Backend say.
// Not thread-safe; owned by a CudaBackend.
#pragma once

#include "kernels/attention.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/paged_reads.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/step_queue.h"
#include "kernels/feedback.h"

namespace sessa::cuda {

class Attention {
 public:
  Attention(Context* context, DeviceStep* step, StepQueue* queue)
      : context_(context), step_(step), queue_(queue), reads_(context, step, queue) {}

  // Of the step's rope: the angles.
  void BeginStep();
  // feedback: null, there is none; one launch for both.
  void Append(const AppendCall& call, const FeedbackRows* feedback);
  void Attend(const AttendCall& call) { reads_.Run(Plan(call)); }
  PlannedRead Plan(const AttendCall& call);
  PagedReads* reads() { return &reads_; }

 private:
  Context* const context_;
  DeviceStep* const step_;
  StepQueue* const queue_;
  PagedReads reads_;
  Buffer rope_;   // cos, then sin: [bucket, half] of the step
  int half_ = 0;  // 0: no rope
};

}  // namespace sessa::cuda
