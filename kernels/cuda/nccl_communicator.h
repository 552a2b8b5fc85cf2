// Ranks on GPUs that talk by NCCL, in order with each rank's stream.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/process_rank.h"

namespace sessa {

// Where this process's ranks are in their group. share_id is all that processes tell each other before NCCL
// connects them: given the id that NCCL made in the process of rank 0 (others: ""), it returns that id in
// each of them. In one process there is nobody to tell; over several it is RankLinks::share.
struct NcclGroup {
  int num_ranks = 1, first_rank = 0;
  std::function<absl::StatusOr<std::string>(std::string id)> share_id = [](std::string id) { return id; };
};

// The ranks group.first_rank + i, on GPU i and in order with streams[i]. UNAVAILABLE, or the error of
// share_id. A watch of each communicator asks NCCL for asynchronous errors, and whether the last collective
// is done within `limit`; if not it aborts the communicator, so that a rank does not wait for ever for a peer
// that is gone or hangs. Communicator::status then says why.
absl::StatusOr<std::vector<std::unique_ptr<GroupCommunicator>>> MakeNcclCommunicators(
    const std::vector<cudaStream_t>& streams, const NcclGroup& group,
    std::chrono::milliseconds limit = kCollectiveLimit);

}  // namespace sessa
