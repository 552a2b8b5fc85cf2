// See rest_server.h: what becomes of a new connection, the threads and the order of shutting down.
#include "server/rest/rest_server.h"

#include <sys/socket.h>

#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/strand.hpp"
#include "engine/monotonic.h"
#include "kernels/slices.h"
#include "server/core/log.h"
#include "server/net/acceptor.h"
#include "server/net/descriptors.h"
#include "server/rest/connection.h"
#include "server/rest/yielding_executor.h"

namespace sessa {
namespace {

namespace net = boost::asio;
using ErrorCode = boost::system::error_code;
using Tcp = net::ip::tcp;

// After the deadline connections are closed by force; their last handlers need a moment.
constexpr absl::Duration kForceTime = absl::Seconds(5);

// What a client beyond max_connections gets; it fits any socket's buffer.
void TurnAway(const ScopedFd& socket, bool tls) {
  static constexpr char kBusy[] =
      "HTTP/1.1 503 Service Unavailable\r\nServer: sessa\r\nContent-Type: application/json\r\nRetry-After: "
      "1\r\n"
      "Content-Length: 119\r\nConnection: close\r\n\r\n"
      "{\"error\":{\"message\":\"The server has too many "
      "connections.\",\"type\":\"overloaded_error\",\"param\":null,"
      "\"code\":\"overloaded\"}}";
  if (!tls) send(socket.get(), kBusy, sizeof(kBusy) - 1, MSG_NOSIGNAL);
  shutdown(socket.get(), SHUT_RDWR);
}

}  // namespace

class RestServer::Impl {
 public:
  Impl(const RestServerOptions& options, Service* service)
      : contexts_(std::make_shared<Contexts>()),
        io_(contexts_, &contexts_->usual),
        options_(options),
        listener_(options.admin ? Listener::kAdmin : Listener::kHttp),
        stats_(&service->metrics().connections()),
        registry_(std::make_shared<ConnectionRegistry>(listener_, stats_)),
        context_(std::make_shared<ConnectionContext>(
            options, service, options.admin ? Handlers::Scope::kAdmin : Handlers::Scope::kAll, registry_)),
        spare_context_(
            std::make_shared<ConnectionContext>(options, service, Handlers::Scope::kSpare, registry_)) {}
  ~Impl() { Shutdown(MonotonicNow()); }

  absl::Status Start() {
    auto acceptor =
        Acceptor::Listen(options_.admin ? "admin" : "REST", options_.host, options_.port, listener_, stats_);
    if (!acceptor.ok()) return acceptor.status();
    acceptor_ = *std::move(acceptor);
    acceptor_->Start([this](ScopedFd socket, bool is_own) { OnAccepted(std::move(socket), is_own); });
    for (int i = 0; i < options_.num_threads; ++i) threads_.emplace_back([this] { Run(&contexts_->usual); });
    threads_.emplace_back([this] {
      BeNicer(TextPool::kLongNice);
      Run(&contexts_->nicer);
    });
    return absl::OkStatus();
  }

  int port() const { return acceptor_->port(); }

  absl::Status CheckListener(absl::Duration timeout) {
    constexpr char kRequest[] = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // Whatever the answer says, it was answered.
    return acceptor_->AskSelf(kRequest, sizeof("HTTP/1.1") - 1, timeout).status();
  }

  void Shutdown(absl::Time deadline) {
    absl::MutexLock lock(&shutdown_mutex_);
    if (shut_down_) return;
    shut_down_ = true;
    registry_->Close();
    if (acceptor_ != nullptr) acceptor_->Stop();
    for (const auto& connection : registry_->All()) connection->BeginShutdown();
    if (!threads_.empty() && !registry_->WaitUntilEmpty(deadline)) {
      for (const auto& connection : registry_->All()) connection->ForceClose();
      registry_->WaitUntilEmpty(MonotonicNow() + kForceTime);
    }
    contexts_->usual.stop();
    contexts_->nicer.stop();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  // What waits in `nicer` may hold sockets of `usual`.
  struct Contexts {
    net::io_context usual, nicer;
  };

  // On the acceptor's thread.
  void OnAccepted(ScopedFd fd, bool is_own) {
    const int num_open = registry_->size();
    // In a burst those that give way are slower to close than others to come: each makes room for one.
    const bool is_full = !is_own && num_open - registry_->num_evicted() >= options_.max_connections;
    const bool evicted = is_full && registry_->EvictIdle();
    const bool tls = options_.tls != nullptr && !is_own;
    if (!is_own && num_open >= options_.max_connections + kSpareHttpConnections) {
      stats_->OnRefused(listener_, Refusal::kLimit);
      return TurnAway(fd, tls);
    }
    Tcp::socket socket(
        net::make_strand(YieldingExecutor(contexts_->usual.get_executor(), contexts_->nicer.get_executor())));
    socket.assign(Tcp::v4(), fd.get());  // throws when it cannot; the family matters to nothing that is used
    fd.Release();
    const TlsContext::Context tls_context = tls ? options_.tls->For(listener_) : nullptr;
    const std::shared_ptr<Connection> connection = MakeConnection(
        io_, std::move(socket), tls_context.get(), is_full && !evicted ? spare_context_ : context_);
    if (connection != nullptr) connection->Start();
  }

  static void Run(net::io_context* io) {
    const auto work = net::make_work_guard(*io);
    while (true) {
      try {
        io->run();
        return;
      } catch (const std::exception&
                   e) {  // memory, mostly: the connection it came from is dropped, the rest goes on
        Log(absl::StrCat("rest: ", e.what()), LogLevel::kError);
      }
    }
  }

  const std::shared_ptr<Contexts> contexts_;
  const std::shared_ptr<net::io_context> io_;  // the usual one of them, and keeps both
  const RestServerOptions options_;
  const Listener listener_;
  ConnectionStats* const stats_;
  const std::shared_ptr<ConnectionRegistry> registry_;
  const std::shared_ptr<ConnectionContext> context_, spare_context_;
  std::unique_ptr<Acceptor> acceptor_;
  std::vector<std::thread> threads_;
  absl::Mutex shutdown_mutex_;
  bool shut_down_ ABSL_GUARDED_BY(shutdown_mutex_) = false;
};

absl::StatusOr<std::unique_ptr<RestServer>> RestServer::Start(const RestServerOptions& options,
                                                              Service* service) {
  std::unique_ptr<Impl> impl;
  try {
    impl = std::make_unique<Impl>(options, service);
    if (absl::Status started = impl->Start(); !started.ok()) return started;
  } catch (const std::exception& e) {  // no thread or no descriptor to be had
    return absl::UnavailableError(absl::StrCat("starting the REST server: ", e.what()));
  }
  return std::unique_ptr<RestServer>(new RestServer(std::move(impl)));
}

RestServer::RestServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RestServer::~RestServer() = default;
int RestServer::port() const { return impl_->port(); }
absl::Status RestServer::CheckListener(absl::Duration timeout) { return impl_->CheckListener(timeout); }
void RestServer::Shutdown(absl::Time deadline) { impl_->Shutdown(deadline); }

}  // namespace sessa
