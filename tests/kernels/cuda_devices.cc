#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/devices.h"

namespace sessa {

std::vector<TestDevice> TestDevices() {
  return {{"Cpu", [] { return MakeCpuBackend(2); }},
          {"Cuda", [] { return MakeCudaBackend({}); }, /*large=*/true, /*batch_invariant=*/false},
          {"CudaBatchInvariant", [] { return MakeCudaBackend({.batch_invariant = true}); }},
          {"CudaSmall", [] { return MakeCudaBackend({}); }, /*large=*/false,
           /*batch_invariant=*/false}};  // for compute-sanitizer
}

}  // namespace sessa
