#include "kernels/process_rank.h"

#include <utility>

#ifdef SESSA_CUDA
#include "kernels/cuda/cuda_ranks.h"
#endif

namespace sessa {

absl::StatusOr<ProcessRank> MakeProcessRank(const DeviceOptions& options, const RankLinks& links) {
  if (options.type == DeviceType::kCuda) {
#ifdef SESSA_CUDA
    return MakeCudaProcessRank(options, links);
#else
    return absl::UnimplementedError("this build has no CUDA backend");
#endif
  }
  ProcessRank rank;
  rank.backend = MakeCpuBackend(options.cpu);
  rank.communicator =
      MakeSocketCommunicator(links.rank, options.num_ranks, links.sockets, rank.backend.get());
  return rank;
}

}  // namespace sessa
