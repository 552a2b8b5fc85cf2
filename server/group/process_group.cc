#include "server/group/process_group.h"

#include <utility>

namespace sessa {
namespace {

std::vector<ScopedFd> TakeWork(std::vector<Member>* peers) {
  std::vector<ScopedFd> work;
  for (Member& peer : *peers) work.push_back(std::move(peer.work));
  return work;
}

std::vector<int> Numbers(const std::vector<ScopedFd>& sockets) {
  std::vector<int> numbers;
  for (const ScopedFd& socket : sockets) numbers.push_back(socket.get());
  return numbers;
}

std::vector<GroupWatch::Peer> TakeWatch(int rank, std::vector<Member>* peers) {
  std::vector<GroupWatch::Peer> watch;
  for (Member& peer : *peers) {
    const int peer_rank = rank == 0 ? static_cast<int>(watch.size()) + 1 : 0;
    watch.push_back({peer_rank, std::move(peer.watch)});
  }
  return watch;
}

}  // namespace

absl::StatusOr<std::shared_ptr<ProcessGroup>> ProcessGroup::Form(const GroupOptions& options,
                                                                 const GroupFacts& facts,
                                                                 GroupEvents events) {
  std::vector<Member> peers;
  if (options.rank == 0) {
    auto members = AwaitMembers(options, facts);
    if (!members.ok()) return members.status();
    peers = *std::move(members);
  } else {
    auto leader = JoinLeader(options, facts);
    if (!leader.ok()) return leader.status();
    peers.push_back(*std::move(leader));
  }
  return std::shared_ptr<ProcessGroup>(new ProcessGroup(options, std::move(peers), std::move(events)));
}

ProcessGroup::ProcessGroup(const GroupOptions& options, std::vector<Member> peers, GroupEvents events)
    : work_(TakeWork(&peers)),
      ranks_(options.rank, options.size, Numbers(work_), std::move(events.on_lost)),
      watch_(TakeWatch(options.rank, &peers), options.silence,
             {[this](const absl::Status& why) { ranks_.Lose(why); }, std::move(events.on_stop)}) {}

}  // namespace sessa
