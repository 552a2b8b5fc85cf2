// The one product that the CUDA backend leaves to a library. The implementation is cuBLASLt's
// (gemm_cublaslt.cc); tests on machines without a GPU link a plain loop in its place, so cuBLASLt itself is
// exercised on a GPU alone.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace sessa::cuda {

// y = x W^T + bias over k dimensions, or y += it, with float32 accumulation. Device memory; x and weight of
// one dtype, kF32 (as it is, no TF32) or kBF16.
struct GemmCall {
  DType dtype;
  const void* x;       // [rows, x_stride]
  int64_t x_stride;    // elements
  const void* weight;  // [n, weight_stride]
  int64_t weight_stride;
  int k;
  const float* bias;  // [n] or null
  bool accumulate;
  Matrix y;  // [rows, n]
  bool operator==(const GemmCall&) const = default;
};

class Gemm {
 public:
  static absl::StatusOr<std::unique_ptr<Gemm>> Create();
  virtual ~Gemm() = default;
  // Chooses how to run calls like this one. Not OK: there is no way, and why.
  virtual absl::Status Prepare(const GemmCall& call) = 0;
  virtual absl::Status Run(cudaStream_t stream, const GemmCall& call) = 0;
};

}  // namespace sessa::cuda
