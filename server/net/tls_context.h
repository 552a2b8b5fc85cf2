// The certificate of both ports, and what is asked of clients: TLS 1.2 or newer, without renegotiation, and a
// certificate of their own when a CA is named. The files are read again on Reload and when their contents
// change (Kubernetes swaps a link): new connections get the new certificate, those that are open keep theirs,
// and files that do not fit together leave the old ones in use. Thread-safe.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
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

  // INVALID_ARGUMENT names the file. `stats` outlives this; the files are looked at every `poll_interval`.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Load(TlsFiles files, ConnectionStats* stats,
                                                          absl::Duration poll_interval = absl::Seconds(5));
  ~TlsContext();

  // For one new connection; a TLS stream made of it keeps what it needs. ALPN names h2 for gRPC, else
  // http/1.1.
  Context For(Listener listener) const;

  // Reads the files now. On error the old certificate stays, and the error has been logged and counted.
  absl::Status Reload();

 private:
  using Pem = std::array<std::string, 3>;  // what the files of TlsFiles hold

  TlsContext(TlsFiles files, ConnectionStats* stats) : files_(std::move(files)), stats_(stats) {}
  absl::StatusOr<Pem> Read() const;
  absl::Status Use(const Pem& pem) ABSL_EXCLUSIVE_LOCKS_REQUIRED(reload_mutex_);
  absl::Status ReloadLocked(bool only_news) ABSL_EXCLUSIVE_LOCKS_REQUIRED(reload_mutex_);

  const TlsFiles files_;
  ConnectionStats* const stats_;
  absl::Mutex reload_mutex_;                 // taken before mutex_, held while files are read
  Pem last_ ABSL_GUARDED_BY(reload_mutex_);  // tried last, in use or not
  mutable absl::Mutex mutex_;
  Context http_ ABSL_GUARDED_BY(mutex_), grpc_ ABSL_GUARDED_BY(mutex_);
  absl::Notification stop_;
  std::thread poller_;
};

}  // namespace sessa
