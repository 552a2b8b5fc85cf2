// The connections of a group of ranks, as socket pairs in one process.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "gtest/gtest.h"

namespace sessa {

class SocketPairs {
 public:
  explicit SocketPairs(int num_ranks) : of_(num_ranks) {
    for (int r = 1; r < num_ranks; ++r) {
      int pair[2] = {-1, -1};
      EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
      of_[0].push_back(pair[0]);
      of_[r].push_back(pair[1]);
    }
  }
  ~SocketPairs() {
    for (int r = 0; r < static_cast<int>(of_.size()); ++r) Close(r);
  }
  SocketPairs(const SocketPairs&) = delete;
  SocketPairs& operator=(const SocketPairs&) = delete;

  // As MakeSocketCommunicator and RankGroup take them.
  const std::vector<int>& of(int rank) const { return of_[rank]; }
  // As the end of the rank's process does.
  void Close(int rank) {
    for (const int socket : of_[rank]) close(socket);
    of_[rank].clear();
  }

 private:
  std::vector<std::vector<int>> of_;
};

}  // namespace sessa
