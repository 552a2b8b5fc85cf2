// The Backend on one NVIDIA GPU.
//
// Batch invariance. Most kernels add in an order given by absolute positions and sizes, so a row has the same
// bits whatever rows run beside it and however its prompt is cut. The exceptions are those for many rows:
// - a linear of 64 rows or more is left to cuBLASLt, which gets the rows rounded to bf16 where the weights
//   are; one of more than kFewQueries rows and bf16 weights splits them in two bf16 (tensor_linear.cu);
// - reads of bf16 or int8 state by more than kFewQueries queries round queries and probabilities for the
// tensor cores
//   (fused_attention.cu, panel_scores.cu);
// - blocks of more than kFewQueries rows are solved by the inverse of their triangle (feedback_solve.cu,
//   panel_solve.cu).
// With `batch_invariant` the kernels for few rows take those too, at the price of speed.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sessa {

struct CudaOptions {
  int device = 0;
  bool batch_invariant = false;
  // Steps of few rows are captured in CUDA graphs and replayed. Only without a communicator that enqueues on
  // the backend's stream itself: it would run ahead of the operations that wait for the end of their step.
  bool graphs = true;
};

// UNAVAILABLE when the device cannot be used, with the driver's reason.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options);

// How steps of few rows ran, of a backend that MakeCudaBackend made.
struct GraphCounts {
  int captures = 0, launches = 0;
  std::string failure;  // why steps are not captured, or only without overlapping launches; empty: they are
};
GraphCounts GraphCountsOf(const Backend& backend);

}  // namespace sessa
