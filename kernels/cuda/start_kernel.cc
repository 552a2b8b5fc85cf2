// The host's side of a launch (runtime.h), without the kernel's types.
#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/notice.h"

namespace sessa::cuda {
namespace {

constexpr size_t kSharedWithoutOptIn = 48 << 10;

std::string NameOf(const void* kernel) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || mangled == nullptr)
    return "a kernel without a name";
  int status = 0;
  char* demangled = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  const std::string name = status == 0 ? demangled : mangled;
  std::free(demangled);
  return absl::StrReplaceAll(name, {{"sessa::cuda::", ""}, {"(anonymous namespace)::", ""}, {"void ", ""}});
}

std::string Describe(const void* kernel, dim3 grid, unsigned block, size_t shared_bytes) {
  return absl::StrCat(NameOf(kernel), ", grid ", grid.x, " x ", grid.y, " x ", grid.z, ", ", block,
                      " threads, ", shared_bytes, " bytes of shared memory");
}

// What a kernel was allowed on a device. Backends share it: what one asks for must not take away from
// another that is between asking and launching, so it only grows. A bound for all kernels would do, were it
// not for those with static memory, which the bound includes.
struct Allowed {
  size_t shared_bytes = kSharedWithoutOptIn;
  bool has_carveout = false;
};
cudaError_t Allow(const void* kernel, size_t shared_bytes) {
  const Carveout carveout = launch_switches().carveout;
  if (shared_bytes <= kSharedWithoutOptIn && carveout != Carveout::kAll) return cudaSuccess;
  static std::mutex mutex;
  static auto* const all = new std::map<std::pair<int, const void*>, Allowed>;
  int device = 0;
  if (cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  std::lock_guard<std::mutex> lock(mutex);
  Allowed& allowed = (*all)[{device, kernel}];
  if (shared_bytes > allowed.shared_bytes) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
    allowed.shared_bytes = shared_bytes;
  }
  if (carveout != Carveout::kDriver && !allowed.has_carveout) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                   cudaSharedmemCarveoutMaxShared);
    if (error != cudaSuccess) return error;
    allowed.has_carveout = true;
  }
  return cudaSuccess;
}

}  // namespace

void StartKernel(cudaStream_t stream, dim3 grid, unsigned block, size_t shared_bytes, const void* kernel,
                 void** arguments) {
  if (launch_switches().trace) Notice(absl::StrCat("launch: ", Describe(kernel, grid, block, shared_bytes)));
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(block);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  if (LaunchesOverlap()) {
    config.attrs = &overlap;
    config.numAttrs = 1;
  }
  cudaError_t error = Allow(kernel, shared_bytes);
  if (error == cudaSuccess) error = cudaLaunchKernelExC(&config, kernel, arguments);
  if (error != cudaSuccess) {
    NoteLaunchFailure(
        absl::StrCat(Describe(kernel, grid, block, shared_bytes), ": ", cudaGetErrorString(error)));
  }
}

}  // namespace sessa::cuda
