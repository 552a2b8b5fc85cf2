// The member's half of the handshake (handshake.h): it tries until the leader answers, and is refused at
// once.
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "kernels/socket_io.h"
#include "server/core/log.h"
#include "server/group/process_group.h"

namespace sessa {
namespace {

// An answer takes a round trip; the leader's other work is on other threads.
constexpr std::chrono::seconds kAnswerLimit(10);
constexpr std::chrono::milliseconds kRetryPeriod(200);
constexpr size_t kMaxLineBytes = 4096;

struct FreeAddresses {
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};

absl::StatusOr<ScopedFd> ConnectTo(const addrinfo& address) {
  ScopedFd fd(socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, address.ai_protocol));
  if (!fd.ok()) return absl::ErrnoToStatus(errno, "a socket");
  int error = connect(fd.get(), address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd waited = {fd.get(), POLLOUT, 0};
    socklen_t size = sizeof(error);
    if (poll(&waited, 1, PollTimeout(kAnswerLimit)) == 0) {
      error = ETIMEDOUT;
    } else {
      getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    }
  }
  if (error != 0) return absl::UnavailableError(absl::ErrnoToStatus(error, "connecting to it").message());
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

absl::StatusOr<ScopedFd> Connect(const std::string& host, int port) {
  addrinfo hints = {}, *found = nullptr;
  hints.ai_flags = AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  // A name that is not known yet: the leader's pod may come later.
  if (int error = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found); error != 0)
    return absl::UnavailableError(gai_strerror(error));
  const std::unique_ptr<addrinfo, FreeAddresses> addresses(found);
  absl::StatusOr<ScopedFd> socket = absl::UnavailableError("no address");
  for (const addrinfo* a = found; a != nullptr && !socket.ok(); a = a->ai_next) socket = ConnectTo(*a);
  return socket;
}

// Byte by byte: what follows is another reader's.
absl::StatusOr<std::string> ReadLine(int socket, std::chrono::milliseconds limit) {
  std::string line;
  while (line.empty() || line.back() != '\n') {
    if (line.size() == kMaxLineBytes) return absl::FailedPreconditionError("the leader's line has no end");
    char byte = 0;
    if (absl::Status got = ReceiveAll(socket, &byte, 1, limit); !got.ok()) return got;
    line += byte;
  }
  return line;
}

struct Greeted {
  ScopedFd socket;
  std::string token;
};

// One try at one connection. UNAVAILABLE: another may succeed.
absl::StatusOr<Greeted> Greet(const GroupOptions& options, Hello hello) {
  absl::StatusOr<ScopedFd> socket = Connect(options.host, options.port);
  if (!socket.ok()) return socket.status();
  const auto line = ReadLine(socket->get(), kAnswerLimit);
  if (!line.ok()) return line.status();
  const auto challenge = ReadChallenge(*line);
  if (!challenge.ok()) return challenge.status();
  hello.nonce = RandomHex();
  const std::string text = WriteHello(hello, *challenge, options.secret);
  absl::Status sent = SendAll(socket->get(), text.data(), text.size(), kAnswerLimit);
  if (!sent.ok()) return sent;
  const auto answer = ReadLine(socket->get(), kAnswerLimit);
  if (!answer.ok()) return answer.status();
  const auto token = ReadAnswer(*answer, hello.nonce, options.secret);
  if (!token.ok()) return token.status();
  return Greeted{*std::move(socket), *token};
}

}  // namespace

absl::StatusOr<Member> JoinLeader(const GroupOptions& options, const GroupFacts& facts) {
  const absl::Time deadline = MonotonicNow() + options.start;
  const std::string leader = absl::StrCat("the group's leader at ", options.host, ":", options.port);
  Log(absl::StrCat("group: rank ", options.rank, " of ", options.size, " looks for ", leader));
  while (true) {
    Hello hello = {Hello::Kind::kWork, options.rank, "", "", facts};
    absl::StatusOr<Greeted> work = Greet(options, hello), watch = absl::UnavailableError("");
    absl::Status status = work.status();
    if (work.ok()) {
      hello.kind = Hello::Kind::kWatch;
      hello.token = work->token;
      hello.facts.clear();
      watch = Greet(options, hello);
      status = watch.status();
    }
    if (status.ok()) {
      Log(absl::StrCat("group: found ", leader, "; waiting for the other ranks"));
      const absl::Duration left = std::max(absl::ZeroDuration(), deadline - MonotonicNow());
      const auto begin = ReadLine(
          work->socket.get(), std::chrono::ceil<std::chrono::milliseconds>(absl::ToChronoNanoseconds(left)));
      if (begin.ok() && *begin == kBegin) return Member{std::move(work->socket), std::move(watch->socket)};
      status = absl::UnavailableError(begin.ok() ? "it does not begin" : begin.status().message());
    }
    if (!absl::IsUnavailable(status)) return status;
    if (MonotonicNow() >= deadline) {
      return absl::UnavailableError(absl::StrCat(leader, " did not take this rank within ",
                                                 absl::FormatDuration(options.start), ": ",
                                                 status.message()));
    }
    std::this_thread::sleep_for(kRetryPeriod);
  }
}

}  // namespace sessa
