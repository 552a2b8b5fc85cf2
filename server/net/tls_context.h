// The certificate of both ports, and what is asked of clients: TLS 1.2 or newer, without renegotiation, and a
// certificate of their own when a CA is named. After a Reload new connections get the new certificate, and
// those that are open keep theirs; files that do not fit together leave the old ones in use. Thread-safe.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "boost/asio/ssl/context.hpp"
#include "server/net/connection_stats.h"

namespace sessa {

struct TlsFiles {
  std::string cert;       // PEM: the server's certificate and those between it and its CA
  std::string key;        // PEM
  std::string client_ca;  // PEM: who may have signed a client's certificate; empty: clients need none
};

class TlsContext {
 public:
  using Context = std::shared_ptr<boost::asio::ssl::context>;

  // INVALID_ARGUMENT names the file. `stats` outlives this.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Load(TlsFiles files, ConnectionStats* stats);

  // For one new connection; a TLS stream made of it keeps what it needs. ALPN names h2 for gRPC, else
  // http/1.1.
  Context For(Listener listener) const;

  // Reads the files. On error the old ones stay in use. Counts, unless they hold what they did.
  absl::Status Reload();

 private:
  void Poll(absl::Duration interval);
  using Pem = std::array<std::string, 3>;  // what the files of TlsFiles hold

  TlsContext(TlsFiles files, ConnectionStats* stats) : files_(std::move(files)), stats_(stats) {}
  absl::StatusOr<Pem> Read() const;
  absl::Status Use(const Pem& pem) ABSL_EXCLUSIVE_LOCKS_REQUIRED(reload_mutex_);

  const TlsFiles files_;
  ConnectionStats* const stats_;
  absl::Mutex reload_mutex_;  // taken before mutex_, held while files are read
  Pem in_use_ ABSL_GUARDED_BY(reload_mutex_);
  mutable absl::Mutex mutex_;
  Context http_ ABSL_GUARDED_BY(mutex_), grpc_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sessa
