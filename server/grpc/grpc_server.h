// The gRPC front end: sessa.v1.Generation, grpc.health.v1 with Watch, and reflection on one port. Health
// follows core:
// "" and "sessa.v1.Generation" are readiness, "liveness" and "startup" the other two probes.
#pragma once

#include <condition_variable>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/monotonic.h"
#include "grpcpp/server.h"
#include "server/core/service.h"
#include "server/grpc/generation_service.h"

namespace sessa {

struct GrpcServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;              // 0: the system picks
  std::string tls_cert_pem;  // both or none
  std::string tls_key_pem;
  int max_concurrent_streams = 4096;  // of one connection
  int num_threads = 2;                // that detokenise and write
  absl::Duration health_interval = absl::Milliseconds(50);
};

class GrpcServer {
 public:
  // UNAVAILABLE, naming the address, when it cannot listen. `service` outlives the server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           Service* service);
  ~GrpcServer();

  int port() const { return port_; }

  // Copies core's probes into grpc.health.v1 now; otherwise a thread does so every health_interval.
  // Thread-safe.
  void PublishHealth();

  // No new calls; those that run may end until `deadline`, then they are cancelled. Blocks. Idempotent.
  void Shutdown(absl::Time deadline);

 private:
  GrpcServer(Service* service, int num_threads) : service_(service), generation_(service, num_threads) {}

  void WatchHealth(absl::Duration interval);
  void Publish(const std::string& name, bool serving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(health_mutex_);

  Service* const service_;
  GenerationService generation_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  absl::Mutex health_mutex_;
  absl::flat_hash_map<std::string, bool> published_ ABSL_GUARDED_BY(health_mutex_);
  Mutex stop_mutex_;
  std::condition_variable_any stopped_;
  bool stop_health_ ABSL_GUARDED_BY(stop_mutex_) = false;
  std::thread health_thread_;
};

}  // namespace sessa
