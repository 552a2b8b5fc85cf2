// kernels/device.h over the emulated CUDA device: the tests that link this have it in place of device.cc.
// Several ranks share the device and talk through host memory.
#include "kernels/cuda/backend.h"
#include "kernels/device.h"

namespace sessa {

bool BuiltWithCuda() { return true; }

absl::StatusOr<std::vector<DeviceRank>> MakeRanks(const DeviceOptions& options) {
  std::vector<DeviceRank> ranks(options.num_ranks);
  std::vector<Backend*> backends;
  for (DeviceRank& rank : ranks) {
    if (options.type == DeviceType::kCpu) {
      rank.backend = MakeCpuBackend(options.cpu);
    } else {
      auto backend = MakeCudaBackend({.batch_invariant = options.batch_invariant});
      if (!backend.ok()) return backend.status();
      rank.backend = *std::move(backend);
    }
    backends.push_back(rank.backend.get());
  }
  auto communicators = MakeHostCommunicators(backends);
  for (int i = 0; i < options.num_ranks; ++i) ranks[i].communicator = std::move(communicators[i]);
  return ranks;
}

}  // namespace sessa
