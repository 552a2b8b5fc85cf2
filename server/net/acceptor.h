// A listening TCP port and the thread that accepts on it. It does nothing else and allocates nothing of its
// own, so no load and no error keeps it from going on: what cannot be taken is closed, counted, and the next
// one tried. Without a free descriptor it lends a spare one to each connection, to close it, rather than let
// clients wait in the kernel's queue. Used by the REST and gRPC servers; thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/net/connection_stats.h"
#include "server/net/scoped_fd.h"

namespace sessa {

class Acceptor {
 public:
  // Gets each connection's socket (non-blocking, without Nagle's delay), on the acceptor's thread. May throw:
  // then the connection is closed. `is_own` is true for the one that AskSelf made.
  using OnAccepted = std::function<void(ScopedFd socket, bool is_own)>;

  // Listens; `host` is an address or a name, `port` 0 lets the system pick. UNAVAILABLE names `what` ("REST")
  // and the address. `stats` outlives this.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(const std::string& what, const std::string& host,
                                                          int port, Listener listener,
                                                          ConnectionStats* stats);
  ~Acceptor() { Stop(); }

  // Once.
  void Start(OnAccepted on_accepted);
  // No call of OnAccepted is running or comes afterwards. Idempotent.
  void Stop();

  int port() const { return port_; }

  // Connects to this port as any client does, sends `request` and waits for `num_bytes` of an answer, which
  // it returns: a check that connections are taken and served. OnAccepted hears that the connection is our
  // own. DEADLINE_EXCEEDED or UNAVAILABLE. Blocks for `timeout` at most; one call at a time.
  absl::StatusOr<std::string> AskSelf(const std::string& request, size_t num_bytes, absl::Duration timeout);

 private:
  enum class Next { kAccept, kWait, kPause };

  Acceptor(Listener listener, ConnectionStats* stats) : listener_(listener), stats_(stats) {}
  void Run(const OnAccepted& on_accepted);
  Next AcceptOne(const OnAccepted& on_accepted);
  bool TurnAwayWithSpare();
  bool IsOwn(const std::string& peer);
  absl::StatusOr<ScopedFd> ConnectToSelf();

  const Listener listener_;
  ConnectionStats* const stats_;
  int port_ = 0;
  ScopedFd socket_;
  ScopedFd wake_;   // an eventfd: Stop
  ScopedFd spare_;  // of the acceptor's thread
  std::thread thread_;
  absl::Mutex mutex_;
  std::string own_ ABSL_GUARDED_BY(mutex_);  // the address that AskSelf's connection comes from
};

}  // namespace sessa
