// See grpc_server.h. Health is gRPC's own service (its Watch pushes each change); a thread copies core's
// probes into it.
#include "server/grpc/grpc_server.h"

#include <chrono>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "server/core/log.h"

namespace sessa {
namespace {

std::shared_ptr<grpc::ServerCredentials> Credentials(const GrpcServerOptions& options) {
  if (options.tls_cert_pem.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions tls;
  tls.pem_key_cert_pairs.push_back({options.tls_key_pem, options.tls_cert_pem});
  return grpc::SslServerCredentials(tls);
}

// What gRPC says of itself (errors only, unless GRPC_VERBOSITY asks for more) must not wait for stderr's
// reader either.
void LogOfGrpc(gpr_log_func_args* args) {
  Log(absl::StrCat("grpc: ", args->file, ":", args->line, ": ", Quoted(args->message)));
}

// An IPv6 address needs brackets before its port.
std::string Address(const std::string& host, int port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              Service* service) {
  gpr_set_log_function(&LogOfGrpc);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  std::unique_ptr<GrpcServer> result(new GrpcServer(service, options.num_threads));

  const std::string address = Address(options.host, options.port);
  const int max_bytes = static_cast<int>(service->limits().max_body_bytes);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, Credentials(options), &result->port_);
  builder.RegisterService(&result->generation_);
  builder.SetMaxReceiveMessageSize(max_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE,
                             static_cast<int>(service->limits().max_header_bytes));
  // A second server on the same port must fail, not share the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A client that vanished without closing is found within a minute, and its pages become free.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 40'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr || result->port_ == 0) {
    return absl::UnavailableError(absl::StrCat("gRPC cannot listen on ", address));
  }
  result->PublishHealth();
  result->health_thread_ = std::thread(
      [server = result.get(), interval = options.health_interval] { server->WatchHealth(interval); });
  return result;
}

GrpcServer::~GrpcServer() {
  if (server_ != nullptr) Shutdown(MonotonicNow());
}

void GrpcServer::WatchHealth(absl::Duration interval) {
  MutexLock lock(&stop_mutex_);
  const auto stopped = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(stop_mutex_) { return stop_health_; };
  while (!WaitUntil(&stopped_, &stop_mutex_, MonotonicNow() + interval, stopped)) PublishHealth();
}

void GrpcServer::PublishHealth() {
  // The lock spans looking and publishing: else one that looked earlier could publish later, and stale news
  // would stay.
  absl::MutexLock lock(&health_mutex_);
  const bool ready = service_->Ready();
  Publish("", ready);
  Publish("sessa.v1.Generation", ready);
  Publish("liveness", service_->Live());
  Publish("startup", service_->Started());
}

void GrpcServer::Publish(const std::string& name, bool serving) {
  const auto [it, is_new] = published_.try_emplace(name, serving);
  // gRPC's service sends every status that is set to all watchers, new or not; Watch promises changes alone.
  if (!is_new && it->second == serving) return;
  it->second = serving;
  server_->GetHealthCheckService()->SetServingStatus(name, serving);
}

void GrpcServer::Shutdown(absl::Time deadline) {
  {
    MutexLock lock(&stop_mutex_);
    stop_health_ = true;
  }
  stopped_.notify_one();
  if (health_thread_.joinable()) health_thread_.join();
  // gRPC takes wall time, and turns it into its own monotonic time at once.
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(deadline - MonotonicNow()));
}

}  // namespace sessa
