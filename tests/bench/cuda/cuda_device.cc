#include "tests/bench/cuda/cuda_device.h"

#include <cublas_v2.h>
#include <cuda_profiler_api.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/cuda_stream.h"
#include "tests/bench/cuda/sampling.h"

namespace sessa {
namespace {

constexpr size_t kCopyBytes = size_t{1} << 30;

absl::Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorString(error)));
}
absl::Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cublasGetStatusString(status)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create() {
  auto backend = MakeCudaBackend({});
  if (!backend.ok()) return backend.status();
  std::unique_ptr<CudaDevice> device(new CudaDevice);
  device->backend_ = *std::move(backend);
  device->stream_ = CudaStreamOf(*device->backend_);
  absl::Status status = ToStatus(cudaEventCreate(&device->begin_), "an event");
  status.Update(ToStatus(cudaEventCreate(&device->end_), "an event"));
  status.Update(ToStatus(cublasCreate(&device->cublas_), "cuBLAS"));
  if (!status.ok()) return status;
  status.Update(ToStatus(cublasSetStream(device->cublas_, device->stream_), "cuBLAS"));
  auto from = device->Random(kCopyBytes / 4, DType::kF32), to = device->backend_->Allocate(kCopyBytes);
  status.Update(from.status());
  status.Update(to.status());
  if (!status.ok()) return status;
  device->from_ = *std::move(from), device->to_ = *std::move(to);
  // A fifth of a second of work: an idle GPU has its clocks down.
  for (int i = 0; i < 256; ++i) device->CopyOnDevice(device->from_.data(), kCopyBytes, device->to_.data());
  status.Update(device->backend_->Synchronize());
  if (!status.ok()) return status;
  return device;
}

CudaDevice::~CudaDevice() {
  if (cublas_ != nullptr) cublasDestroy(cublas_);
  if (begin_ != nullptr) (void)cudaEventDestroy(begin_);
  if (end_ != nullptr) (void)cudaEventDestroy(end_);
}

std::string CudaDevice::Description() const {
  cudaDeviceProp properties = {};
  int driver = 0, runtime = 0, cublas = 0;
  (void)cudaGetDeviceProperties(&properties, 0);
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  (void)cublasGetVersion(cublas_, &cublas);
  return absl::StrFormat(
      "%s, %d multiprocessors, %.0f MB of L2 cache, %.1f GB of memory; driver for CUDA %d.%d, "
      "runtime %d.%d, cuBLAS %d",
      properties.name, properties.multiProcessorCount, properties.l2CacheSize * 1e-6,
      properties.totalGlobalMem * 1e-9, driver / 1000, driver % 1000 / 10, runtime / 1000,
      runtime % 1000 / 10, cublas);
}

void CudaDevice::CopyOnDevice(const void* from, size_t bytes, void* to) {
  (void)cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_);
}

absl::StatusOr<double> CudaDevice::SecondsOfOne(absl::FunctionRef<void()> body, int runs) {
  // Two large copies go first: until they are done the host has enqueued all runs, so that its launches do
  // not count; and they clear the L2 cache. A body that waits for the device, as a whole step does, is
  // measured with the host's work.
  CopyOnDevice(from_.data(), kCopyBytes, to_.data());
  CopyOnDevice(from_.data(), kCopyBytes, to_.data());
  absl::Status status = ToStatus(cudaEventRecord(begin_, stream_), "an event");
  for (int i = 0; i < runs; ++i) body();
  status.Update(ToStatus(cudaEventRecord(end_, stream_), "an event"));
  status.Update(backend_->Synchronize());
  float milliseconds = 0;
  status.Update(ToStatus(cudaEventElapsedTime(&milliseconds, begin_, end_), "the time"));
  if (!status.ok()) return status;
  return milliseconds * 1e-3 / runs;
}

absl::StatusOr<std::vector<double>> CudaDevice::Time(absl::FunctionRef<void()> body) {
  if (profile_only_) {
    const auto seconds = Profile(body);
    if (!seconds.ok()) return seconds.status();
    return std::vector<double>{*seconds};
  }
  return SampleTimes([&](int runs) { return SecondsOfOne(body, runs); });
}

absl::StatusOr<double> CudaDevice::Profile(absl::FunctionRef<void()> body) {
  for (int i = 0; i < kWarmRuns; ++i) body();
  absl::Status status = backend_->Synchronize();
  status.Update(ToStatus(cudaProfilerStart(), "cudaProfilerStart"));
  if (!status.ok()) return status;
  const auto seconds = SecondsOfOne(body, 1);
  status.Update(ToStatus(cudaProfilerStop(), "cudaProfilerStop"));
  if (!status.ok()) return status;
  return seconds;
}

absl::StatusOr<Measurement> CudaDevice::MeasureCopy() {
  auto seconds = Time([&] { CopyOnDevice(from_.data(), kCopyBytes, to_.data()); });
  if (!seconds.ok()) return seconds.status();
  return Measurement{"Copy/GiB:1", *std::move(seconds), {2.0 * kCopyBytes, 0}, {}};
}

absl::StatusOr<Measurement> CudaDevice::MeasureGemm() {
  constexpr int n = 8192;
  auto a = Random(size_t{n} * n, DType::kBF16), b = Random(size_t{n} * n, DType::kBF16),
       c = Random(size_t{n} * n, DType::kBF16);
  for (const auto* m : {&a, &b, &c}) {
    if (!m->ok()) return m->status();
  }
  const float one = 1, zero = 0;
  absl::Status status;
  auto seconds = Time([&] {
    status.Update(ToStatus(cublasGemmEx(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a->data(),
                                        CUDA_R_16BF, n, b->data(), CUDA_R_16BF, n, &zero, c->data(),
                                        CUDA_R_16BF, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                           "cublasGemmEx"));
  });
  status.Update(seconds.status());
  if (!status.ok()) return status;
  return Measurement{"Gemm/bf16/8192", *std::move(seconds), {6.0 * n * n, 2.0 * n * n * n}, {}};
}

absl::StatusOr<Measurement> CudaDevice::MeasureStrsm(int rows, int D) {
  // Small entries: the solution takes the right-hand side's place and must stay finite run after run.
  auto triangle = Random(size_t(rows) * rows, DType::kF32, 0.1f / static_cast<float>(rows)),
       x = Random(size_t(rows) * D, DType::kF32);
  if (!triangle.ok()) return triangle.status();
  if (!x.ok()) return x.status();
  const float one = 1;
  absl::Status status;
  auto seconds = Time([&] {
    // Row-major L X = F is X^T L^T = F^T in cuBLAS's column-major terms.
    status.Update(
        ToStatus(cublasStrsm(cublas_, CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N,
                             CUBLAS_DIAG_UNIT, D, rows, &one, triangle->floats(), rows, x->floats(), D),
                 "cublasStrsm"));
  });
  status.Update(seconds.status());
  if (!status.ok()) return status;
  return Measurement{
      absl::StrCat("cublasStrsm/D:", D, "/rows:", rows), *std::move(seconds), StrsmWork(rows, D), {}};
}

}  // namespace sessa
