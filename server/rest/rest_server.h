// The REST front end: HTTP/1.1 with keep-alive, and TLS when a certificate is given, on one port. A few
// threads read, parse, tokenise and write; each connection lives on its own strand, so a connection's code
// runs on one at a time.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/core/service.h"
#include "server/net/tls_context.h"
#include "server/rest/cors.h"

namespace sessa {

struct RestServerOptions {
  std::string host = "127.0.0.1";   // an address, or a name
  int port = 0;                     // 0: the system picks
  const TlsContext* tls = nullptr;  // null: plain; outlives the server
  bool admin = false;               // probes and metrics alone
  Cors cors = {};                   // none on the admin port
  int num_threads = 4;
  // Beyond it the connection that has been idle for the longest gives way. Where none is idle, a few more are
  // taken for probes alone, and the rest is answered 503 and closed.
  int max_connections = 4096;
  absl::Duration idle_timeout =
      absl::Seconds(75);  // between two requests; above the usual 60 s of load balancers
  absl::Duration header_timeout = absl::Seconds(15);  // also the TLS handshake's
  // A body must come within body_timeout and the time that its bytes so far take at min_body_rate: one that
  // stands still ends after 20 s at most beyond that, 4 MB may take two and a half minutes.
  absl::Duration body_timeout = absl::Seconds(20);
  double min_body_rate = 32 << 10;  // bytes a second
  // Who has been sending a body or reading an answer for so long may be given up for others when memory is
  // short; in 10 s anyone but a client on a very slow line has the largest answer.
  absl::Duration evict_body_after = absl::Seconds(2), evict_reply_after = absl::Seconds(10);
  absl::Duration write_timeout = absl::Seconds(60);  // for each 64 KiB
};

class RestServer {
 public:
  // UNAVAILABLE, naming the address, when it cannot listen; INVALID_ARGUMENT for a bad certificate. `service`
  // outlives the server.
  static absl::StatusOr<std::unique_ptr<RestServer>> Start(const RestServerOptions& options,
                                                           Service* service);
  ~RestServer();

  int port() const;

  // Whether a connection to the port is taken and answered. Blocks for `timeout` at most.
  absl::Status CheckListener(absl::Duration timeout);

  // No new connections or requests; replies that are under way may end until `deadline`, then their
  // connections are closed and their generations cancelled. Blocks. Idempotent.
  void Shutdown(absl::Time deadline);

 private:
  class Impl;
  explicit RestServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sessa
