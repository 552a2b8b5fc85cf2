// See acceptor.h.
#include "server/net/acceptor.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/net/listen_socket.h"

namespace sessa {
namespace {

// After an error that waiting may mend (no memory), and when even the spare descriptor is gone.
constexpr int kPauseMs = 100;

std::string Bytes(const sockaddr_storage& address, socklen_t size) {
  return std::string(reinterpret_cast<const char*>(&address), size);
}

absl::Status Errno(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

ScopedFd OpenSpare() { return ScopedFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

// One of the errors of the network that accept(2) passes on: the next connection may well be fine.
bool IsOfOneConnection(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM: return true;
    default: return false;
  }
}

using Clock = std::chrono::steady_clock;

// Waits for `events`; false at the deadline.
bool Await(const ScopedFd& fd, short events, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return false;
    pollfd waited = {fd.get(), events, 0};
    const int ready = poll(&waited, 1, static_cast<int>(left.count()));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

absl::StatusOr<std::string> Exchange(const ScopedFd& socket, const std::string& request, size_t num_bytes,
                                     absl::Duration timeout) {
  const Clock::time_point deadline = Clock::now() + absl::ToChronoNanoseconds(timeout);
  std::string reply;
  size_t sent = 0;
  while (sent < request.size() || reply.size() < num_bytes) {
    const bool sending = sent < request.size();
    if (!Await(socket, sending ? POLLOUT : POLLIN, deadline))
      return absl::DeadlineExceededError(absl::StrCat("no answer within ", absl::FormatDuration(timeout)));
    char bytes[512];
    const ssize_t n = sending ? send(socket.get(), &request[sent], request.size() - sent, MSG_NOSIGNAL)
                              : recv(socket.get(), bytes, sizeof(bytes), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n <= 0) return absl::UnavailableError("the connection ended before an answer");
    sending ? void(sent += n) : void(reply.append(bytes, n));
  }
  return reply;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(const std::string& what, const std::string& host,
                                                           int port, Listener listener,
                                                           ConnectionStats* stats) {
  absl::StatusOr<ScopedFd> socket = ListenOn(what, host, port);
  if (!socket.ok()) return socket.status();
  const std::string where = absl::StrCat(what, " cannot listen on ", host, ":", port);
  std::unique_ptr<Acceptor> acceptor(new Acceptor(listener, stats));
  acceptor->socket_ = *std::move(socket);
  sockaddr_storage bound = {};
  socklen_t size = sizeof(bound);
  char service[NI_MAXSERV];
  if (getsockname(acceptor->socket_.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
    return Errno(where);
  if (getnameinfo(reinterpret_cast<sockaddr*>(&bound), size, nullptr, 0, service, sizeof(service),
                  NI_NUMERICSERV) != 0)
    return absl::UnavailableError(where);
  acceptor->port_ = std::atoi(service);
  acceptor->wake_.Reset(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!acceptor->wake_.ok()) return Errno(where);
  acceptor->spare_ = OpenSpare();
  return acceptor;
}

void Acceptor::Start(OnAccepted on_accepted) {
  thread_ = std::thread([this, on_accepted = std::move(on_accepted)] { Run(on_accepted); });
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    while (write(wake_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
  socket_.Reset();
}

void Acceptor::Run(const OnAccepted& on_accepted) {
  bool pause = false;
  while (true) {
    pollfd fds[2] = {{wake_.get(), POLLIN, 0}, {socket_.get(), POLLIN, 0}};
    poll(fds, pause ? 1 : 2, pause ? kPauseMs : -1);
    if (fds[0].revents != 0) return;
    Next next = Next::kAccept;
    // A flood must not keep Stop waiting: it is looked at after so many.
    for (int i = 0; i < 256 && next == Next::kAccept; ++i) next = AcceptOne(on_accepted);
    pause = next == Next::kPause;
  }
}

Acceptor::Next Acceptor::AcceptOne(const OnAccepted& on_accepted) {
  sockaddr_storage peer = {};
  socklen_t size = sizeof(peer);
  ScopedFd fd(
      accept4(socket_.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd.ok()) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Next::kWait;
    if (IsOfOneConnection(errno)) return Next::kAccept;
    if (errno == EMFILE || errno == ENFILE) return TurnAwayWithSpare() ? Next::kAccept : Next::kPause;
    stats_->OnRefused(listener_, Refusal::kError);
    return Next::kPause;
  }
  const int on = 1;  // a token must not wait for the acknowledgement of the last
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  try {
    const bool is_own = IsOwn(Bytes(peer, size));
    on_accepted(std::move(fd), is_own);
  } catch (const std::exception&) {  // no memory: this connection is lost, the next is tried
    stats_->OnRefused(listener_, Refusal::kError);
  }
  return Next::kAccept;
}

bool Acceptor::TurnAwayWithSpare() {
  spare_.Reset();
  ScopedFd refused(accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  const bool was_there = refused.ok();
  if (was_there) {
    const linger reset = {1, 0};  // tells the client at once, and leaves nothing in TIME_WAIT
    setsockopt(refused.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    stats_->OnRefused(listener_, Refusal::kDescriptors);
  }
  refused.Reset();
  spare_ = OpenSpare();  // another thread may have been faster; then the next time
  return was_there;
}

bool Acceptor::IsOwn(const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  return !own_.empty() && own_ == peer;
}

absl::StatusOr<ScopedFd> Acceptor::ConnectToSelf() {
  sockaddr_storage to = {}, from = {};
  socklen_t to_size = sizeof(to), from_size = sizeof(from);
  // On Linux the wildcard address, as one to connect to, is this machine.
  if (getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&to), &to_size) != 0)
    return Errno("getsockname");
  ScopedFd fd(socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.ok()) return Errno("socket");
  absl::MutexLock lock(&mutex_);  // the acceptor may have the connection before its address is known here
  const int connected = connect(fd.get(), reinterpret_cast<sockaddr*>(&to), to_size);
  if (connected != 0 && errno != EINPROGRESS) return Errno("connect");
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&from), &from_size) != 0) return Errno("getsockname");
  own_ = Bytes(from, from_size);
  return fd;
}

absl::StatusOr<std::string> Acceptor::AskSelf(const std::string& request, size_t num_bytes,
                                              absl::Duration timeout) {
  const absl::StatusOr<ScopedFd> socket = ConnectToSelf();
  if (!socket.ok()) return socket.status();
  absl::StatusOr<std::string> reply = Exchange(*socket, request, num_bytes, timeout);
  absl::MutexLock lock(&mutex_);
  own_.clear();  // before the socket closes and another client could come from its address
  return reply;
}

}  // namespace sessa
