// The threads on which GuardedConnections live: each connection on one of them, from its beginning to its
// end. They only move bytes, so a few carry thousands of connections. Thread-safe.
#pragma once

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/net/guarded_connection.h"

namespace sessa {

class GuardPool {
 public:
  // `stats` outlives this. `serve` is given the library's end of each connection's pair, on a thread of the
  // pool.
  GuardPool(const GuardOptions& options, ConnectionStats* stats, std::function<void(ScopedFd)> serve);
  ~GuardPool();

  // May throw for want of memory: then the socket is closed. `tls` null: plain. `is_own`: see
  // GuardedConnection.
  void Add(ScopedFd socket, TlsContext::Context tls, bool is_own);
  // Connections that clients have open.
  int size() const { return static_cast<int>(context_.stats->open(Listener::kGrpc)); }

  // `serve` is not called any more: connections that the library has not heard of end, and so do new ones.
  void BeginShutdown();
  // Waits until the library has ended its connections and all is written, or for `deadline`, which ends the
  // rest. Idempotent.
  void Shutdown(absl::Time deadline);

 private:
  class Worker;

  const GuardContext context_;
  std::vector<std::unique_ptr<Worker>> workers_;
  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sessa
