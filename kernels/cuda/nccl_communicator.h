// Ranks on GPUs that talk by NCCL, in order with each rank's stream.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/communicator.h"

namespace sessa {

// streams[i]: of the backend of rank i, on GPU i. A watch of each communicator asks NCCL for asynchronous
// errors and aborts it on one, so that a rank does not wait for ever for a peer that is gone;
// Communicator::status then says why.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> MakeNcclCommunicators(
    const std::vector<cudaStream_t>& streams);

}  // namespace sessa
