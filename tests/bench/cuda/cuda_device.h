// A GPU that is measured: a CUDA backend, the clock of its stream, and what the device can do at best, by
// copies and by NVIDIA's own library.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/runtime.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/table.h"

struct cublasContext;

namespace sessa {

class CudaDevice final : public BenchDevice {
 public:
  // UNAVAILABLE without a GPU.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create();
  // From here on a benchmark is not timed: it warms up and runs once more, between cudaProfilerStart and
  // Stop.
  void ProfileOnly() { profile_only_ = true; }
  ~CudaDevice() override;

  std::string Description() const;
  Backend* backend() override { return backend_.get(); }
  void CopyOnDevice(const void* from, size_t bytes, void* to) override;
  absl::StatusOr<std::vector<double>> Time(absl::FunctionRef<void()> body) override;

  absl::StatusOr<Measurement> MeasureCopy();
  absl::StatusOr<Measurement> MeasureGemm();  // bf16, 8192 x 8192 x 8192
  // cublasStrsm with D right-hand sides: what Solve stands beside.
  absl::StatusOr<Measurement> MeasureStrsm(int rows, int D);

 private:
  CudaDevice() = default;
  absl::StatusOr<double> SecondsOfOne(absl::FunctionRef<void()> body, int runs);
  absl::StatusOr<double> Profile(absl::FunctionRef<void()> body);

  bool profile_only_ = false;
  std::unique_ptr<Backend> backend_;
  cudaStream_t stream_ = nullptr;  // the backend's
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  cublasContext* cublas_ = nullptr;
  Buffer from_, to_;  // of the copy
};

}  // namespace sessa
