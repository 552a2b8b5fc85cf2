// The ranks of a tensor-parallel group on GPUs.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace sessa {

// As MakeRanks. More than one rank needs NCCL: UNIMPLEMENTED where this build has none.
absl::StatusOr<std::vector<DeviceRank>> MakeCudaRanks(const DeviceOptions& options);

}  // namespace sessa
