// Stands in for cuBLASLt where there is no GPU: the same contract by a plain loop, with double accumulation.
// emulator::RefuseProducts: as where the library has no algorithm.
#include <atomic>
#include <cstring>

#include "kernels/convert.h"
#include "kernels/cuda/gemm.h"
#include "tests/cuda/device_guard.h"

namespace sessa::emulator {
namespace {
std::atomic<bool> refuse_products{false};
}  // namespace
void RefuseProducts(bool on) { refuse_products = on; }
}  // namespace sessa::emulator

namespace sessa::cuda {
namespace {

class PlainGemm final : public Gemm {
 public:
  absl::Status Prepare(const GemmCall&) override {
    return emulator::refuse_products ? absl::InternalError("no algorithm") : absl::OkStatus();
  }
  absl::Status Run(cudaStream_t stream, const GemmCall& call) override {
    emulator::Enqueue(stream, [call] { Multiply(call); });
    return absl::OkStatus();
  }

 private:
  static void Multiply(const GemmCall& c) {
    const emulator::DeviceAccess access;
    for (int r = 0; r < c.y.rows; ++r) {
      for (int j = 0; j < c.y.cols; ++j) {
        double sum = c.bias != nullptr ? c.bias[j] : 0.0;
        for (int i = 0; i < c.k; ++i) {
          sum += double{ToFloat(c.x, r * c.x_stride + i, c.dtype)} *
                 ToFloat(c.weight, j * c.weight_stride + i, c.dtype);
        }
        if (c.accumulate) sum += c.y.row(r)[j];
        c.y.row(r)[j] = static_cast<float>(sum);
      }
    }
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Gemm>> Gemm::Create() { return std::make_unique<PlainGemm>(); }

}  // namespace sessa::cuda
