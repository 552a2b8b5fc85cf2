// Where the operations of a step go: to the stream at once or, in a decode step, to a graph. Not thread-safe;
// owned by a CudaBackend.
#pragma once

#include "kernels/cuda/decode_graphs.h"
#include "kernels/cuda/device_step.h"
#include "kernels/cuda/kernels.h"

namespace sessa::cuda {

class StepQueue {
 public:
  // The step must outlive this.
  StepQueue(cudaStream_t stream, DeviceStep* step) : stream_(stream), step_(step), graphs_(stream) {}

  cudaStream_t stream() const { return stream_; }
  // From here to Flush operations are kept.
  void Defer() { graphs_.Defer(); }

  // Enqueues an operation now or with the rest of its decode step; the key as of DecodeGraphs::Keep.
  template <class Run, class... P>
  void Enqueue(const Run& run, const char* name, const P&... key) {
    if (graphs_.is_deferring()) {
      graphs_.Keep(run, name, key...);
    } else {
      step_->Send();
      run();
    }
  }
  // Enqueues what waits. The rest of the step, if there is one, does not wait any more.
  void Flush() {
    if (!graphs_.is_deferring()) return;
    step_->Send();
    graphs_.Flush(step_->fits_graph());
  }

  // Operands (matrices, partials) with the rows of a decode step get those of its bucket.
  template <class... M>
  RowLaunch Pad(M*... operands) const {
    bool is_padded = false;
    const auto pad = [&](int* rows) {
      if (!step_->is_decode() || *rows != step_->num_rows()) return;
      *rows = step_->bucket();
      is_padded = true;
    };
    (pad(&operands->rows), ...);
    return {stream_, is_padded ? step_->live() : nullptr};
  }

 private:
  const cudaStream_t stream_;
  DeviceStep* const step_;
  DecodeGraphs graphs_;
};

}  // namespace sessa::cuda
