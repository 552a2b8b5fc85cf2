// See rest_server.h: the acceptor, its threads and the order of shutting down.
#include "server/rest/rest_server.h"

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
#include "boost/asio/ssl/context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/strand.hpp"
#include "engine/monotonic.h"
#include "server/core/log.h"
#include "server/rest/connection.h"

namespace sessa {
namespace {

namespace net = boost::asio;
using ErrorCode = boost::system::error_code;
using Tcp = net::ip::tcp;

// After the deadline connections are closed by force; their last handlers need a moment.
constexpr absl::Duration kForceTime = absl::Seconds(5);
constexpr std::chrono::milliseconds kAcceptPause(100);  // after an error such as too many open files

absl::StatusOr<std::unique_ptr<net::ssl::context>> MakeTls(const RestServerOptions& options) {
  if (options.tls_cert_file.empty() && options.tls_key_file.empty())
    return std::unique_ptr<net::ssl::context>();
  auto tls = std::make_unique<net::ssl::context>(net::ssl::context::tls_server);
  ErrorCode ec;
  tls->set_options(
      net::ssl::context::default_workarounds | net::ssl::context::no_tlsv1 | net::ssl::context::no_tlsv1_1,
      ec);
  tls->use_certificate_chain_file(options.tls_cert_file, ec);
  if (ec) {
    return absl::InvalidArgumentError(
        absl::StrCat("reading the TLS certificate ", options.tls_cert_file, ": ", ec.message()));
  }
  tls->use_private_key_file(options.tls_key_file, net::ssl::context::pem, ec);
  if (ec)
    return absl::InvalidArgumentError(
        absl::StrCat("reading the TLS key ", options.tls_key_file, ": ", ec.message()));
  return tls;
}

// What a client beyond max_connections gets; it fits any socket's buffer.
void TurnAway(Tcp::socket* socket, bool tls) {
  static constexpr char kBusy[] =
      "HTTP/1.1 503 Service Unavailable\r\nServer: sessa\r\nContent-Type: application/json\r\nRetry-After: "
      "1\r\n"
      "Content-Length: 119\r\nConnection: close\r\n\r\n"
      "{\"error\":{\"message\":\"The server has too many "
      "connections.\",\"type\":\"overloaded_error\",\"param\":null,"
      "\"code\":\"overloaded\"}}";
  ErrorCode ignored;
  socket->non_blocking(true, ignored);
  if (!tls) socket->send(net::buffer(kBusy, sizeof(kBusy) - 1), 0, ignored);
  socket->shutdown(Tcp::socket::shutdown_both, ignored);
  socket->close(ignored);
}

}  // namespace

class RestServer::Impl {
 public:
  Impl(const RestServerOptions& options, Service* service)
      : io_(std::make_shared<net::io_context>()),
        work_(net::make_work_guard(*io_)),
        context_(std::make_shared<ConnectionContext>(options, service)),
        acceptor_(net::make_strand(*io_)),
        accept_timer_(acceptor_.get_executor()) {}
  ~Impl() { Shutdown(MonotonicNow()); }

  absl::Status Start() {
    auto tls = MakeTls(context_->options);
    if (!tls.ok()) return tls.status();
    tls_ = *std::move(tls);
    if (absl::Status listening = Listen(); !listening.ok()) return listening;
    Accept();
    for (int i = 0; i < context_->options.num_threads; ++i) threads_.emplace_back([this] { Run(); });
    return absl::OkStatus();
  }

  int port() const { return port_; }

  void Shutdown(absl::Time deadline) {
    absl::MutexLock lock(&shutdown_mutex_);
    if (shut_down_) return;
    shut_down_ = true;
    ConnectionRegistry& registry = context_->registry;
    registry.Close();
    net::post(acceptor_.get_executor(), [this] {
      ErrorCode ignored;
      acceptor_.close(ignored);
      accept_timer_.cancel();
    });
    for (const auto& connection : registry.All()) connection->BeginShutdown();
    if (!threads_.empty() && !registry.WaitUntilEmpty(deadline)) {
      for (const auto& connection : registry.All()) connection->ForceClose();
      registry.WaitUntilEmpty(MonotonicNow() + kForceTime);
    }
    work_.reset();
    io_->stop();
    for (std::thread& thread : threads_) thread.join();
    ErrorCode ignored;
    acceptor_.close(ignored);  // when no thread came to it
  }

 private:
  absl::Status Listen() {
    const RestServerOptions& options = context_->options;
    const std::string address = absl::StrCat(options.host, ":", options.port);
    auto fail = [&address](const ErrorCode& ec) {
      return absl::UnavailableError(absl::StrCat("REST cannot listen on ", address, ": ", ec.message()));
    };
    ErrorCode ec;
    Tcp::resolver resolver(*io_);
    const auto found = resolver.resolve(options.host, absl::StrCat(options.port),
                                        Tcp::resolver::passive | Tcp::resolver::numeric_service, ec);
    if (ec) return fail(ec);
    const Tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), ec);
    if (!ec)
      acceptor_.set_option(net::socket_base::reuse_address(true), ec);  // past TIME_WAIT; no second listener
    if (!ec) acceptor_.bind(endpoint, ec);
    if (!ec) acceptor_.listen(net::socket_base::max_listen_connections, ec);
    if (ec) return fail(ec);
    port_ = acceptor_.local_endpoint(ec).port();
    return absl::OkStatus();
  }

  void Accept() {
    acceptor_.async_accept(net::make_strand(*io_), [this](ErrorCode ec, Tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (ec) {
        accept_timer_.expires_after(kAcceptPause);
        accept_timer_.async_wait([this](ErrorCode cancelled) {
          if (!cancelled && acceptor_.is_open()) Accept();
        });
        return;
      }
      OnAccepted(std::move(socket));
      Accept();
    });
  }

  void OnAccepted(Tcp::socket socket) {
    ErrorCode ignored;
    socket.set_option(Tcp::no_delay(true),
                      ignored);  // a token must not wait for the acknowledgement of the last
    if (context_->registry.size() >= context_->options.max_connections)
      return TurnAway(&socket, tls_ != nullptr);
    const std::shared_ptr<Connection> connection =
        MakeConnection(io_, std::move(socket), tls_.get(), context_);
    if (connection != nullptr) connection->Start();
  }

  void Run() {
    while (true) {
      try {
        io_->run();
        return;
      } catch (const std::exception&
                   e) {  // memory, mostly: the connection it came from is dropped, the rest goes on
        Log(absl::StrCat("rest: ", e.what()));
      }
    }
  }

  const std::shared_ptr<net::io_context> io_;
  net::executor_work_guard<net::io_context::executor_type> work_;
  const std::shared_ptr<ConnectionContext> context_;
  std::unique_ptr<net::ssl::context> tls_;
  Tcp::acceptor acceptor_;  // on a strand of its own, with its timer
  net::steady_timer accept_timer_;
  int port_ = 0;
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
void RestServer::Shutdown(absl::Time deadline) { impl_->Shutdown(deadline); }

}  // namespace sessa
