// What the CUDA benchmarks ask of the device that they measure. CudaDevice (cuda_device.h) is a GPU with its
// clock; tests run the same benchmarks on other backends.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sessa {

inline constexpr int kPage = 64;  // tokens of a page, in all benchmarks

class BenchDevice {
 public:
  virtual ~BenchDevice() = default;
  virtual Backend* backend() = 0;
  virtual void CopyOnDevice(const void* from, size_t bytes, void* to) = 0;
  // Seconds of one run of `body`, which enqueues work of the backend; a value for each sample. It runs
  // several times before: what it allocates, plans and uploads at first does not count.
  virtual absl::StatusOr<std::vector<double>> Time(absl::FunctionRef<void()> body) = 0;

  // Values of mean 0 and this standard deviation: products of zeros are faster than what they stand for.
  // Of int8: -8 to -1, which will do as a column and as an exponent.
  void FillRandom(void* device, size_t bytes, DType dtype, float scale = 1);
  absl::StatusOr<Buffer> Random(size_t values, DType dtype, float scale = 1);

 private:
  std::map<std::pair<DType, float>, Buffer> patterns_;  // random values on the device, to be copied
};

// Uniform values of mean 0 and this standard deviation in bf16, the same every time.
std::vector<uint16_t> RandomBf16(size_t n, float scale);

}  // namespace sessa
