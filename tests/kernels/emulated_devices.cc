#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/devices.h"

namespace sessa {

std::vector<TestDevice> TestDevices() {
  return {{"Cpu", [] { return MakeCpuBackend(2); }},
          {"EmulatedCuda", [] { return MakeCudaBackend({}); }, /*large=*/false, /*batch_invariant=*/false},
          {"EmulatedCudaBatchInvariant", [] { return MakeCudaBackend({.batch_invariant = true}); },
           /*large=*/false}};
}

}  // namespace sessa
