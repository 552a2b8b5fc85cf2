// The devices that a model can run on, and the ranks of a tensor-parallel group on them.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"

namespace sessa {

enum class DeviceType { kCpu, kCuda };

// Whether this build has the CUDA backend; a GPU may still be missing.
bool BuiltWithCuda();

struct DeviceOptions {
  DeviceType type = DeviceType::kCpu;
  int num_ranks = 1;
  CpuOptions cpu = {};  // of each rank
  bool batch_invariant =
      false;  // CUDA: the kernels for few rows also for many (kernels/cuda/backend.h); a CPU always is
};

// What a rank computes with. The communicator is gone before the backend.
struct DeviceRank {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> communicator;
};

// Rank i of a CUDA group has GPU i to itself. UNIMPLEMENTED when this build has no CUDA backend, UNAVAILABLE
// when a GPU is missing or cannot be used.
absl::StatusOr<std::vector<DeviceRank>> MakeRanks(const DeviceOptions& options);

}  // namespace sessa
