// Whether the other processes of a group live: a byte from each every now and then, on a connection of its
// own and from a thread of its own, so that it comes however long a step takes. Who is silent for too long or
// whose connection ends is lost: killed, stopped, or cut off. (A process that lives and whose step hangs is
// not seen here; a collective has a limit.)
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/net/scoped_fd.h"

namespace sessa {

class GroupWatch {
 public:
  struct Peer {
    int rank;
    ScopedFd socket;  // connected
  };
  struct Events {
    // On the watch's thread; they must not block. A peer has said why it ends, or was lost. Once.
    std::function<void(const absl::Status& why)> on_lost;
    std::function<void(int rank)> on_stop;  // a peer asks that the group end in good order
  };
  GroupWatch(std::vector<Peer> peers, absl::Duration silence, Events events);
  ~GroupWatch();  // tells the peers that nothing is wrong

  // Thread-safe.
  void AskToStop();
  void Fail(absl::string_view why);  // this process is about to end, and why

 private:
  struct Watched {
    Peer peer;
    absl::Time heard;
    bool ended = false;   // in good order
    bool failed = false;  // and says why:
    std::string why = {};
  };

  void Run();
  void SendAll(char byte);
  // Not OK: the peer is lost.
  absl::Status Read(Watched* watched);

  std::vector<Watched> peers_;
  const absl::Duration silence_;
  const Events events_;
  ScopedFd stop_;  // an eventfd
  std::thread thread_;
};

}  // namespace sessa
