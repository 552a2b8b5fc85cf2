// One client's connection: reads requests, hands them to Handlers and writes what comes back, one after the
// other. While a generation runs the socket is watched, so that a client that leaves ends it. All members run
// on the connection's strand; what other threads may call is said so.
#pragma once

#include <atomic>
#include <condition_variable>
#include <list>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl/context.hpp"
#include "engine/monotonic.h"
#include "server/net/connection_stats.h"
#include "server/rest/handlers.h"
#include "server/rest/rest_server.h"

namespace sessa {

// Thread-safe.
class Connection {
 public:
  virtual ~Connection() = default;
  virtual void Start() = 0;
  // Ends after the reply that is under way; at once when there is none.
  virtual void BeginShutdown() = 0;
  virtual void ForceClose() = 0;
};

// The connections that live, and which of them wait for a request. Thread-safe.
class ConnectionRegistry {
 public:
  ConnectionRegistry(Listener listener, ConnectionStats* stats) : listener_(listener), stats_(stats) {}

  // False after Close.
  bool Add(Connection* key, std::weak_ptr<Connection> connection);
  void Remove(Connection* key);
  void Close();
  // Waits for a request from now on, or has one.
  void SetIdle(Connection* key, bool idle);
  // Asks the connection that has been idle for the longest to end, after the reply to a request that has just
  // come; false when none is idle.
  bool EvictIdle();
  int size() const;
  int num_evicted() const;  // of them: asked to end by EvictIdle
  std::vector<std::shared_ptr<Connection>> All() const;
  // False at the deadline.
  bool WaitUntilEmpty(absl::Time deadline) const;

 private:
  struct Entry {
    std::weak_ptr<Connection> connection;
    std::optional<std::list<Connection*>::iterator> idle;  // its place in idle_
    bool evicted = false;
  };
  void SetIdleLocked(Connection* key, Entry* entry, bool idle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Listener listener_;
  ConnectionStats* const stats_;
  mutable Mutex mutex_;
  mutable std::condition_variable_any emptied_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<Connection*, Entry> connections_ ABSL_GUARDED_BY(mutex_);
  std::list<Connection*> idle_ ABSL_GUARDED_BY(mutex_);  // the longest idle first
  int num_evicted_ ABSL_GUARDED_BY(mutex_) = 0;
};

// What connections of a server share; constant but for the registry.
struct ConnectionContext {
  ConnectionContext(const RestServerOptions& options, Service* service, Handlers::Scope scope,
                    std::shared_ptr<ConnectionRegistry> registry)
      : options(options), handlers(service, scope, options.cors), registry(std::move(registry)) {}

  const RestServerOptions options;
  const Handlers handlers;
  const std::shared_ptr<ConnectionRegistry> registry;
};

// `io` is what `socket` runs on; its executor is a strand of the connection's own, of a YieldingExecutor.
// `tls` null: plain.
std::shared_ptr<Connection> MakeConnection(std::shared_ptr<boost::asio::io_context> io,
                                           boost::asio::ip::tcp::socket socket,
                                           boost::asio::ssl::context* tls,
                                           std::shared_ptr<ConnectionContext> context);

}  // namespace sessa
