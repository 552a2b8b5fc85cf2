// A rank that is alone in its process, with its device and its way to those of other processes.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace sessa {

// One whose peers can be lost while this rank lives.
class GroupCommunicator : public Communicator {
 public:
  // A peer is lost, as somebody else has found: ends what waits for it; status() is `why` unless it was not
  // OK before. From any thread.
  virtual void GiveUp(const absl::Status& why) = 0;
};

// How long a collective may be without any progress, with all that ranks compute before they come to it. A
// step of prefill takes seconds at most.
inline constexpr std::chrono::seconds kCollectiveLimit(60);

// Through host memory and connected sockets, which stay the caller's and open: of rank 0 sockets[i] leads to
// rank i + 1, of others the one there is leads to rank 0, which hands on what the others are to have. Nothing
// is added up on the way, so all bits are those of ranks in one process. Its status is UNAVAILABLE from then
// on when a connection ends, or is still for `limit`, in the middle. The backend outlives it.
std::unique_ptr<GroupCommunicator> MakeSocketCommunicator(int rank, int size, std::vector<int> sockets,
                                                          Backend* backend,
                                                          std::chrono::milliseconds limit = kCollectiveLimit);

struct RankLinks {
  int rank = 0;
  std::vector<int> sockets;  // as MakeSocketCommunicator takes them
  // Gives every process what rank 0 gave; collective, and before any other use of the sockets.
  std::function<absl::StatusOr<std::string>(std::string)> share;
};

// The communicator is gone before the backend.
struct ProcessRank {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<GroupCommunicator> communicator;
};

// One of options.num_ranks: on a CPU it talks over the sockets; on the first GPU that this process sees by
// NCCL, whose id goes over them. The errors of MakeRanks.
absl::StatusOr<ProcessRank> MakeProcessRank(const DeviceOptions& options, const RankLinks& links);

}  // namespace sessa
