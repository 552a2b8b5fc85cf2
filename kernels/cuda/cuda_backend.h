// The Backend on one NVIDIA GPU.
//
// Batch invariance. Every kernel of ours adds in an order given by absolute positions and sizes, so a row has
// the same bits whatever rows run beside it and however its prompt is cut. The one exception is a linear over
// kGemmRows rows or more, which is left to cuBLASLt: it rounds the rows to bf16 when the weights are bf16,
// and its order of sums may depend on their number. With `batch_invariant` our own kernel takes those too, at
// the price of the tensor cores.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sessa {

struct CudaOptions {
  int device = 0;
  bool batch_invariant = false;
  // Decode steps are captured in CUDA graphs and replayed. Only without a communicator that enqueues on the
  // backend's stream itself: it would run ahead of the operations that wait for the end of their step.
  bool decode_graphs = true;
};

// UNAVAILABLE when the device cannot be used, with the driver's reason.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options);

}  // namespace sessa
