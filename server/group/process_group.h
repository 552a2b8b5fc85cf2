// A process's place in a group of ranks that have a process each: how the processes find each other (the
// leader, rank 0, listens; the others come to it), and the connections that RankGroup and GroupWatch work on.
// Made once, when it is known which model is to be served, and kept until the end.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/rank_group.h"
#include "server/group/group_watch.h"
#include "server/group/handshake.h"
#include "server/net/scoped_fd.h"

namespace sessa {

struct GroupOptions {
  int rank = 0, size = 2;
  std::string host;
  int port = 0;                                // of the leader; it may leave the choice to the system
  std::string secret;                          // empty: none
  absl::Duration silence = absl::Seconds(10);  // after which a rank is lost
  absl::Duration start = absl::Minutes(10);    // for all to find each other
};

struct GroupEvents {
  // On any thread, once; must not block.
  std::function<void(const absl::Status& why)> on_lost = [](const absl::Status&) {};
  std::function<void(int rank)> on_stop = [](int) {};  // the rank was asked to stop, and asks that all do
};

// The sockets of a member: work first, then watch.
struct Member {
  ScopedFd work, watch;
};

class ProcessGroup {
 public:
  // Blocks until all are there. UNAVAILABLE when they are not in time; of ranks other than 0
  // FAILED_PRECONDITION or PERMISSION_DENIED when the leader refuses this one.
  static absl::StatusOr<std::shared_ptr<ProcessGroup>> Form(const GroupOptions& options,
                                                            const GroupFacts& facts, GroupEvents events);

  RankGroup* ranks() { return &ranks_; }
  // To the others, thread-safe: this one was asked to stop; this one is about to end, and why.
  void AskToStop() { watch_.AskToStop(); }
  void Fail(const absl::Status& why) { watch_.Fail(why.message()); }

 private:
  ProcessGroup(const GroupOptions& options, std::vector<Member> peers, GroupEvents events);

  std::vector<ScopedFd> work_;
  RankGroup ranks_;
  GroupWatch watch_;  // last: its thread uses the rest
};

// The two halves of Form. The leader's: members in the order of ranks, from 1. Log lines say who comes.
absl::StatusOr<std::vector<Member>> AwaitMembers(const GroupOptions& options, const GroupFacts& facts);
absl::StatusOr<Member> JoinLeader(const GroupOptions& options, const GroupFacts& facts);

}  // namespace sessa
