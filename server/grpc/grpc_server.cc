// See grpc_server.h. A thread copies core's probes into the health service, whose Watch pushes each change.
#include "server/grpc/grpc_server.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/support/log.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "server/core/log.h"

namespace sessa {
namespace {

using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;

// What the last bytes may take to reach clients that read, once the calls have ended.
constexpr absl::Duration kFlushTime = absl::Seconds(1);

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(duration), INT32_MAX));
}

// What gRPC says of itself (errors only, unless GRPC_VERBOSITY asks for more) must not wait for stderr's
// reader either.
void LogOfGrpc(gpr_log_func_args* args) {
  Log(absl::StrCat("grpc: ", args->file, ":", args->line, ": ", Quoted(args->message)),
      args->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kError : LogLevel::kInfo);
}

// The bounds that the library keeps by itself; Http2Guard has the others.
void SetBounds(const GrpcServerOptions& options, const Limits& limits, grpc::ServerBuilder* builder) {
  grpc::ResourceQuota quota("server");
  quota.Resize(options.max_library_bytes);  // beyond it, idle connections are closed and calls refused
  builder->SetResourceQuota(quota);
  builder->SetMaxReceiveMessageSize(static_cast<int>(limits.max_body_bytes));
  // A message is inflated whole before its size is looked at: 1 MB on the wire may be 1 GB. Clients that send
  // them so are told UNIMPLEMENTED, before it comes to that, and that identity is what is taken.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  const std::pair<const char*, int> arguments[] = {
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, static_cast<int>(options.guard.limits.max_streams)},
      {GRPC_ARG_MAX_METADATA_SIZE, static_cast<int>(limits.max_header_bytes)},
      // The guard holds clients to this size of frames; measuring the path would let the library raise it.
      {GRPC_ARG_HTTP2_MAX_FRAME_SIZE, static_cast<int>(options.guard.limits.max_frame_bytes)},
      {GRPC_ARG_HTTP2_BDP_PROBE, 0},
      // A client that vanished without closing is found within a minute, and its pages become free; pings go
      // on while there is nothing to send, as to a client that grants no window.
      {GRPC_ARG_KEEPALIVE_TIME_MS, 40'000},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000},
      {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
      {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
      // The guard counts pings. The library would end a client that pings every 10 s, the least that gRPC's
      // own clients allow themselves, when three of them come a little early.
      {GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0},
      {GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(options.max_connection_idle)},
      {GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(options.max_connection_age)},
      {GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Milliseconds(limits.max_timeout + absl::Minutes(1))},
  };
  for (const auto& [name, value] : arguments) builder->AddChannelArgument(name, value);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              Service* service) {
  gpr_set_log_function(&LogOfGrpc);
  grpc::EnableDefaultHealthCheckService(false);  // it has no List
  std::unique_ptr<GrpcServer> result(new GrpcServer(service, options.num_threads, options.write_timeout));
  ConnectionStats* stats = &service->metrics().connections();
  auto acceptor = Acceptor::Listen("gRPC", options.host, options.port, Listener::kGrpc, stats);
  if (!acceptor.ok()) return acceptor.status();
  result->acceptor_ = *std::move(acceptor);
  GrpcServerOptions guarded = options;
  const int64_t max_body_bytes = service->limits().max_body_bytes;
  guarded.guard.limits.max_message_bytes =
      static_cast<uint32_t>(std::min<int64_t>(2 * max_body_bytes, UINT32_MAX));

  grpc::ServerBuilder builder;
  builder.RegisterService(&result->generation_);
  builder.RegisterService(&result->kserve_);
  builder.RegisterService(&result->health_);
  builder.RegisterService(&result->reflection_);
  builder.RegisterService(&result->old_reflection_);
  SetBounds(options, service->limits(), &builder);
  result->library_ =
      builder.experimental().AddExternalConnectionAcceptor(Type::FROM_FD, grpc::InsecureServerCredentials());
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr) return absl::UnavailableError("gRPC cannot start");
  try {
    result->Accept(guarded, stats);
  } catch (const std::exception& e) {  // no thread to be had
    return absl::UnavailableError(absl::StrCat("starting the gRPC server: ", e.what()));
  }
  return result;
}

void GrpcServer::Accept(const GrpcServerOptions& options, ConnectionStats* stats) {
  PublishHealth();
  health_thread_ = std::thread([this, interval = options.health_interval] { WatchHealth(interval); });
  guards_ = std::make_unique<GuardPool>(options.guard, stats, [this](ScopedFd socket) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.fd = socket.Release();
    library_->HandleNewConnection(&connection);
  });
  acceptor_->Start([this, stats, options](ScopedFd socket, bool is_own) {
    if (!is_own && guards_->size() >= options.max_connections) {
      stats->OnRefused(Listener::kGrpc, Refusal::kLimit);
      return;  // closes it: a gRPC client tries again later, or elsewhere
    }
    guards_->Add(std::move(socket), options.tls != nullptr ? options.tls->For(Listener::kGrpc) : nullptr,
                 is_own);
  });
}

absl::Status GrpcServer::CheckListener(absl::Duration timeout) {
  // The preface and an empty SETTINGS frame; the library answers with its own SETTINGS (RFC 9113, 3.4).
  std::string hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  hello.append({0, 0, 0, 4, 0, 0, 0, 0, 0});
  return acceptor_->AskSelf(hello, 9, timeout).status();
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
  health_.Set("", ready);
  health_.Set("sessa.v1.Generation", ready);
  health_.Set("inference.GRPCInferenceService", ready);
  health_.Set("liveness", service_->Live());
  health_.Set("startup", service_->Started());
}

std::vector<std::string> GrpcServer::ServiceNames() {
  return {"sessa.v1.Generation", "inference.GRPCInferenceService", "grpc.health.v1.Health",
          "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"};
}

void GrpcServer::Shutdown(absl::Time deadline) {
  {
    MutexLock lock(&stop_mutex_);
    stop_health_ = true;
  }
  stopped_.notify_one();
  if (health_thread_.joinable()) health_thread_.join();
  acceptor_->Stop();
  health_.Shutdown();
  if (guards_ != nullptr) guards_->BeginShutdown();  // the library takes no connection once it ends
  // gRPC takes wall time, and turns it into its own monotonic time at once.
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(deadline - MonotonicNow()));
  // The library has closed its ends: what it wrote last is on its way to clients that read.
  if (guards_ != nullptr) guards_->Shutdown(std::max(deadline, MonotonicNow() + kFlushTime));
}

}  // namespace sessa
