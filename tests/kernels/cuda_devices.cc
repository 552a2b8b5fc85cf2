#include "kernels/cuda/backend.h"
#include "tests/kernels/devices.h"

namespace sessa {

std::vector<TestDevice> TestDevices() {
  return {{.name = "Cpu",
           .make = [] { return MakeCpuBackend({.num_threads = 2}); },
           .impulse_tokens = 2000,
           .rotates = CpuHasInt8Dot()},
          {"Cuda", [] { return MakeCudaBackend({}); }, /*large=*/true, /*impulse_tokens=*/100000,
           /*batch_invariant=*/false},
          {"CudaBatchInvariant", [] { return MakeCudaBackend({.batch_invariant = true}); }, /*large=*/true,
           /*impulse_tokens=*/20000},  // its kernels for few rows read the cache again for each
          {"CudaSmall", [] { return MakeCudaBackend({}); }, /*large=*/false, /*impulse_tokens=*/1000,
           /*batch_invariant=*/false}};  // for compute-sanitizer
}

}  // namespace sessa
