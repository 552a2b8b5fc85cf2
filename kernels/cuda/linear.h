// The CUDA backend's linear layers: few rows by kernels of our own, which read the weights once, many by
// cuBLASLt, but for shapes that it has no algorithm for. Not thread-safe; owned by a CudaBackend.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/step_queue.h"

namespace sessa::cuda {

class LinearLayers {
 public:
  // batch_invariant: a row has the same bits in any batch, so neither cuBLASLt nor tensor cores are used.
  LinearLayers(Context* context, StepQueue* queue, std::unique_ptr<Gemm> gemm, bool batch_invariant)
      : context_(context), queue_(queue), gemm_(std::move(gemm)), batch_invariant_(batch_invariant) {}

  // As the functions of Backend. Int8 weights are unpacked to bf16 for the library.
  absl::StatusOr<LinearWeights> Make(const TensorView& weight, const TensorView* bias, DType to);
  void Run(Matrix x, const Norm& norm, absl::Span<const LinearCall> calls);

 private:
  // x or a copy of it: in the weights' type for the library, else in float32.
  struct Input {
    void* data;
    int rows, cols;
    int64_t stride;
  };
  absl::Status Quantize(const TensorView& weight, LinearWeights* w);
  // Whether the library can run all of them; says once why not.
  bool Prepare(RowLaunch on, Input in, absl::Span<const LinearTask> tasks, DType dtype);
  // False when there is no memory.
  bool MakeCall(RowLaunch on, Input in, const LinearTask& task, DType dtype, GemmCall* call);
  // At most kMaxLinearTasks.
  void RunGemm(RowLaunch on, Input in, absl::Span<const LinearTask> tasks, DType dtype);
  void RunOwn(RowLaunch on, Input in, absl::Span<const LinearTask> tasks, DType dtype);

  Context* const context_;
  StepQueue* const queue_;
  const std::unique_ptr<Gemm> gemm_;
  const bool batch_invariant_;
  bool has_refused_ = false;
  Buffer partial_, counters_, in_, gemm_out_, gate_out_, unpacked_;  // scratch, grown as needed
};

}  // namespace sessa::cuda
