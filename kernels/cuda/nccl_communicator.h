// Ranks on GPUs that talk by NCCL, in order with each rank's stream.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/communicator.h"

namespace sessa {

// How long a collective may take, with all that its stream does before it. A step of prefill takes seconds at
// most.
inline constexpr std::chrono::seconds kCollectiveLimit(60);

// streams[i]: of the backend of rank i, on GPU i. A watch of each communicator asks NCCL for asynchronous
// errors, and whether the last collective is done within `limit`; if not it aborts the communicator, so that
// a rank does not wait for ever for a peer that is gone or hangs. Communicator::status then says why.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> MakeNcclCommunicators(
    const std::vector<cudaStream_t>& streams, std::chrono::milliseconds limit = kCollectiveLimit);

}  // namespace sessa
