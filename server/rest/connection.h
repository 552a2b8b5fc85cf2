// One client's connection: reads requests, hands them to Handlers and writes what comes back, one after the
// other. While a generation runs the socket is watched, so that a client that leaves ends it. All members run
// on the connection's strand; what other threads may call is said so.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl/context.hpp"
#include "engine/monotonic.h"
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

// The connections that live. Thread-safe.
class ConnectionRegistry {
 public:
  // False after Close.
  bool Add(Connection* key, std::weak_ptr<Connection> connection);
  void Remove(Connection* key);
  void Close();
  int size() const;
  std::vector<std::shared_ptr<Connection>> All() const;
  // False at the deadline.
  bool WaitUntilEmpty(absl::Time deadline) const;

 private:
  mutable Mutex mutex_;
  mutable std::condition_variable_any emptied_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<Connection*, std::weak_ptr<Connection>> connections_ ABSL_GUARDED_BY(mutex_);
};

// What all connections of a server share; constant but for the registry.
struct ConnectionContext {
  ConnectionContext(const RestServerOptions& options, Service* service)
      : options(options), handlers(service) {}

  const RestServerOptions options;
  const Handlers handlers;
  ConnectionRegistry registry;
};

// `io` is what `socket` runs on; its executor is a strand of the connection's own. `tls` null: plain.
std::shared_ptr<Connection> MakeConnection(std::shared_ptr<boost::asio::io_context> io,
                                           boost::asio::ip::tcp::socket socket,
                                           boost::asio::ssl::context* tls,
                                           std::shared_ptr<ConnectionContext> context);

}  // namespace sessa
