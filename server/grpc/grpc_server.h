// The gRPC front end: sessa.v1.Generation, grpc.health.v1 with Watch, and reflection on one port. Health
// follows core: "" and "sessa.v1.Generation" are readiness, "liveness" and "startup" the other two probes.
// Connections are accepted, counted, decrypted and watched here (server/net); the library gets one end of a
// socket pair for each, and never listens.
#pragma once

#include <condition_variable>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/monotonic.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/core/service.h"
#include "server/grpc/generation_service.h"
#include "server/grpc/health_service.h"
#include "server/grpc/kserve_service.h"
#include "server/grpc/reflection_service.h"
#include "server/net/acceptor.h"
#include "server/net/guard_pool.h"
#include "server/net/tls_context.h"

namespace sessa {

struct GrpcServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;                                      // 0: the system picks
  const TlsContext* tls = nullptr;                   // null: plain; outlives the server
  int max_connections = 1024;                        // one more is closed as it comes
  GuardOptions guard;                                // what a client may do on the connection
  int num_threads = 2;                               // that detokenise and write
  absl::Duration write_timeout = absl::Seconds(60);  // for one event
  size_t max_library_bytes = 512 << 20;              // of gRPC's own buffers and calls, over all connections
  absl::Duration max_connection_idle = absl::Minutes(5);
  absl::Duration max_connection_age =
      absl::Hours(1);  // then the client is asked to come anew; calls end first
  absl::Duration health_interval = absl::Milliseconds(50);
};

class GrpcServer {
 public:
  // UNAVAILABLE, naming the address, when it cannot listen. `service` outlives the server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           Service* service);
  ~GrpcServer();

  int port() const { return acceptor_->port(); }

  // Whether a connection to the port is taken and gRPC answers on it. Blocks for `timeout` at most.
  absl::Status CheckListener(absl::Duration timeout);

  // Copies core's probes into grpc.health.v1 now; otherwise a thread does so every health_interval.
  // Thread-safe.
  void PublishHealth();

  // No new calls; those that run may end until `deadline`, then they are cancelled. Blocks. Idempotent.
  void Shutdown(absl::Time deadline);

 private:
  GrpcServer(Service* service, int num_threads, absl::Duration write_timeout)
      : service_(service),
        wakeups_(std::make_shared<WakeupQueue>(num_threads)),
        generation_(service, wakeups_, &watcher_, write_timeout),
        kserve_(service, wakeups_, &watcher_, write_timeout),
        reflection_(ServiceNames()),
        old_reflection_(ServiceNames()) {}
  static std::vector<std::string> ServiceNames();

  void WatchHealth(absl::Duration interval);
  void Accept(const GrpcServerOptions& options, ConnectionStats* stats);

  Service* const service_;
  const std::shared_ptr<WakeupQueue> wakeups_;
  CallWatcher watcher_;
  GenerationService generation_;
  KserveService kserve_;
  HealthService health_;
  ReflectionService<grpc::reflection::v1::ServerReflection> reflection_;
  ReflectionService<grpc::reflection::v1alpha::ServerReflection> old_reflection_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> library_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<GuardPool> guards_;
  std::unique_ptr<Acceptor> acceptor_;
  absl::Mutex health_mutex_;
  Mutex stop_mutex_;
  std::condition_variable_any stopped_;
  bool stop_health_ ABSL_GUARDED_BY(stop_mutex_) = false;
  std::thread health_thread_;
};

}  // namespace sessa
