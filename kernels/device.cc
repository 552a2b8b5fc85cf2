#include "kernels/device.h"

#include <utility>

#ifdef SESSA_CUDA
#include "kernels/cuda/cuda_ranks.h"
#endif

namespace sessa {

#ifdef SESSA_CUDA
bool BuiltWithCuda() { return true; }
#else
bool BuiltWithCuda() { return false; }
#endif

absl::StatusOr<std::vector<DeviceRank>> MakeRanks(const DeviceOptions& options) {
  if (options.type == DeviceType::kCuda) {
#ifdef SESSA_CUDA
    return MakeCudaRanks(options);
#else
    return absl::UnimplementedError("this build has no CUDA backend");
#endif
  }
  auto communicators = MakeThreadCommunicators(options.num_ranks);
  std::vector<DeviceRank> ranks;
  for (auto& communicator : communicators)
    ranks.push_back({MakeCpuBackend(options.cpu), std::move(communicator)});
  return ranks;
}

}  // namespace sessa
