#include "kernels/cuda/cuda_ranks.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/backend.h"

#ifdef SESSA_NCCL
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/nccl_communicator.h"
#endif

namespace sessa {

absl::StatusOr<std::vector<DeviceRank>> MakeCudaRanks(const DeviceOptions& options) {
  std::vector<DeviceRank> ranks(options.num_ranks);
  for (int i = 0; i < options.num_ranks; ++i) {
    auto backend = MakeCudaBackend(
        {.device = i, .batch_invariant = options.batch_invariant, .graphs = options.num_ranks == 1});
    if (!backend.ok()) return backend.status();
    ranks[i].backend = *std::move(backend);
  }
  if (options.num_ranks == 1) {
    ranks[0].communicator = std::move(MakeThreadCommunicators(1)[0]);  // has nobody to talk to
    return ranks;
  }
#ifdef SESSA_NCCL
  std::vector<cudaStream_t> streams;
  for (const DeviceRank& rank : ranks) streams.push_back(CudaStreamOf(*rank.backend));
  auto communicators = MakeNcclCommunicators(streams, {.num_ranks = options.num_ranks});
  if (!communicators.ok()) return communicators.status();
  for (int i = 0; i < options.num_ranks; ++i) ranks[i].communicator = std::move((*communicators)[i]);
  return ranks;
#else
  return absl::UnimplementedError(
      absl::StrCat("tensor_parallel_size: ", options.num_ranks, " GPUs need NCCL, which this build has not"));
#endif
}

absl::StatusOr<ProcessRank> MakeCudaProcessRank(const DeviceOptions& options, const RankLinks& links) {
#ifdef SESSA_NCCL
  auto backend =
      MakeCudaBackend({.device = 0, .batch_invariant = options.batch_invariant, .graphs = false});
  if (!backend.ok()) return backend.status();
  auto communicators = MakeNcclCommunicators(
      {CudaStreamOf(**backend)},
      {.num_ranks = options.num_ranks, .first_rank = links.rank, .share_id = links.share});
  if (!communicators.ok()) return communicators.status();
  return ProcessRank{*std::move(backend), std::move((*communicators)[0])};
#else
  (void)links;
  return absl::UnimplementedError(
      absl::StrCat("group_address: ", options.num_ranks, " GPUs need NCCL, which this build has not"));
#endif
}

}  // namespace sessa
