#include "kernels/cuda/backend.h"
#include "tests/kernels/devices.h"

namespace sessa {

std::vector<TestDevice> TestDevices() {
  constexpr int kTokens = 1500;
  return {{.name = "Cpu",
           .make = [] { return MakeCpuBackend({.num_threads = 2}); },
           .impulse_tokens = 20000,  // impulse_test has more
           .rotates = CpuHasInt8Dot()},
          CpuTiles("CpuTiles", false),
          {"EmulatedCuda", [] { return MakeCudaBackend({}); }, /*large=*/false, kTokens,
           /*batch_invariant=*/false},
          {"EmulatedCudaBatchInvariant", [] { return MakeCudaBackend({.batch_invariant = true}); },
           /*large=*/false, kTokens}};
}

}  // namespace sessa
