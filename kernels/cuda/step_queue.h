// Where the operations of a step go: to the stream at once or, in a decode step that may be replayed, to its
// graph. Not thread-safe; owned by a CudaBackend.
#pragma once

#include "kernels/cuda/context.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/step_graphs.h"

namespace sessa::cuda {

class StepQueue {
 public:
  StepQueue(Context* context, DeviceStep* step, StepGraphs* graphs)
      : context_(context), step_(step), graphs_(graphs) {}

  // Calls function(args...), which enqueues an operation, now or with the rest of its decode step.
  template <class... P, class... A>
  void Enqueue(void (*function)(P...), const A&... args) {
    if (graphs_->is_deferring()) {
      graphs_->Keep(function, args...);
    } else {
      step_->Send();
      function(args...);
    }
  }

  // Enqueues what waits. The rest of the step, if there is one, does not wait any more.
  void Flush() {
    if (!graphs_->is_deferring()) return;
    step_->Send();
    graphs_->Flush(step_->fits_graph());
  }

  // Operands (matrices, partials, numbers of rows) with the rows of a decode step get those of its bucket.
  template <class... M>
  RowLaunch Pad(M*... operands) const {
    bool is_padded = false;
    const auto pad = [&](int* rows) {
      if (!step_->is_decode() || *rows != step_->num_rows()) return;
      *rows = step_->bucket();
      is_padded = true;
    };
    (pad(RowsOf(operands)), ...);
    return {context_->stream(), is_padded ? step_->live() : nullptr};
  }

 private:
  static int* RowsOf(int* rows) { return rows; }
  template <class M>
  static int* RowsOf(M* operand) {
    return &operand->rows;
  }

  Context* const context_;
  DeviceStep* const step_;
  StepGraphs* const graphs_;
};

}  // namespace sessa::cuda
