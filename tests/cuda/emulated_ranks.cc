// kernels/device.h and process_rank.h over the emulated CUDA device: the tests that link this have it in
// place of device.cc and process_rank.cc. Several ranks share the device and talk through host memory, or
// sockets.
#include <utility>

#include "kernels/cuda/backend.h"
#include "kernels/device.h"
#include "kernels/process_rank.h"

namespace sessa {

bool BuiltWithCuda() { return true; }

namespace {

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const DeviceOptions& options) {
  if (options.type == DeviceType::kCpu) return MakeCpuBackend(options.cpu);
  return MakeCudaBackend({.batch_invariant = options.batch_invariant});
}

}  // namespace

absl::StatusOr<std::vector<DeviceRank>> MakeRanks(const DeviceOptions& options) {
  std::vector<DeviceRank> ranks(options.num_ranks);
  std::vector<Backend*> backends;
  for (DeviceRank& rank : ranks) {
    auto backend = MakeBackend(options);
    if (!backend.ok()) return backend.status();
    rank.backend = *std::move(backend);
    backends.push_back(rank.backend.get());
  }
  // One has nobody to talk to, and must not be waited for.
  auto communicators = options.num_ranks == 1 ? MakeThreadCommunicators(1) : MakeHostCommunicators(backends);
  for (int i = 0; i < options.num_ranks; ++i) ranks[i].communicator = std::move(communicators[i]);
  return ranks;
}

absl::StatusOr<ProcessRank> MakeProcessRank(const DeviceOptions& options, const RankLinks& links) {
  auto backend = MakeBackend(options);
  if (!backend.ok()) return backend.status();
  ProcessRank rank;
  rank.backend = *std::move(backend);
  rank.communicator =
      MakeSocketCommunicator(links.rank, options.num_ranks, links.sockets, rank.backend.get());
  return rank;
}

}  // namespace sessa
