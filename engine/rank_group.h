// The ranks of a group that have a process each, as one of them sees the others: how plans, the few words
// that all must know, and the news that one is lost come to them. Whoever made the connections (server/group)
// owns them and watches that the others live; on them this speaks in turns: first words, then of rank 0
// plans, each followed by what the communicator exchanges.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "engine/mutex.h"
#include "engine/step_message.h"
#include "kernels/process_rank.h"

namespace sessa {

// Lose and status are thread-safe; all else is for one thread, of Workers.
class RankGroup {
 public:
  // The sockets are connected and outlive this; which leads where: MakeSocketCommunicator. `on_lost` is
  // called once a rank is lost, with why, on the thread that has found it; it must not block. Requires: 0 <=
  // rank < size.
  RankGroup(
      int rank, int size, std::vector<int> sockets,
      std::function<void(const absl::Status&)> on_lost = [](const absl::Status&) {});

  int rank() const { return rank_; }
  int size() const { return size_; }
  RankLinks links();

  // Collective: every rank's word, by rank, in each of them. Waits for the slowest as long as it is not lost.
  // At most 64 KiB each.
  absl::StatusOr<std::vector<std::string>> Share(const std::string& own);

  // Rank 0: to all others, before its own forward pass.
  absl::Status SendStep(const StepPlan& plan, const std::vector<int32_t>& logit_rows);
  // Rank 0: there will be no more.
  void SendEnd();
  // Other ranks: waits for the next step; false: there is none.
  absl::StatusOr<bool> ReceiveStep(const StepBounds& bounds, StepMessage* message);

  // A rank is lost, and so is the group: ends what waits for it here. The first call counts, and none once
  // the group has ended in good order.
  void Lose(const absl::Status& why);
  // Not OK once a rank is lost.
  absl::Status status() const;
  // Whom Lose tells to give up, at once where that was before; null: nobody. After the call nobody tells the
  // one before.
  void SetCommunicator(GroupCommunicator* communicator);

 private:
  struct Frame;

  absl::Status Send(int peer, const Frame& frame, const void* bytes);
  absl::Status Receive(int peer, uint32_t kind, size_t max_bytes, std::string* bytes);
  // The frame's head; its bytes are to be read then.
  absl::Status ReceiveHead(int peer, size_t max_bytes, Frame* frame);
  // Loses the group by what went wrong with a peer; returns why it is lost.
  absl::Status Fail(int peer, const absl::Status& why);
  void SetEnded();

  const int rank_, size_;
  const std::vector<int> sockets_;
  const std::function<void(const absl::Status&)> on_lost_;
  std::vector<int32_t> words_;  // of the step in transit

  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  GroupCommunicator* communicator_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace sessa
