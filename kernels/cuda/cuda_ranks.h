// The ranks of a tensor-parallel group on GPUs.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/process_rank.h"

namespace sessa {

// As MakeRanks. More than one rank needs NCCL: UNIMPLEMENTED where this build has none.
absl::StatusOr<std::vector<DeviceRank>> MakeCudaRanks(const DeviceOptions& options);
// As MakeProcessRank, on GPU 0 of those that this process sees. Needs NCCL.
absl::StatusOr<ProcessRank> MakeCudaProcessRank(const DeviceOptions& options, const RankLinks& links);

}  // namespace sessa
