// The leader's half of the handshake (handshake.h). One thread and one poll for all connections: who says
// nothing, or nothing that makes sense, keeps nobody out. When all members are there the port is closed.
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/monotonic.h"
#include "kernels/socket_io.h"
#include "server/core/log.h"
#include "server/group/process_group.h"
#include "server/net/listen_socket.h"

namespace sessa {
namespace {

constexpr absl::Duration kHelloLimit = absl::Seconds(10);
constexpr size_t kMaxStrangers = 64;  // connections that have not said who they are; more wait in the kernel
constexpr std::chrono::seconds kSendLimit(10);

// "ADDRESS:PORT" of this end or of the other.
std::string NameOf(int socket, decltype(getpeername)* get) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
  if (get(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof(host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
  }
  return absl::StrCat(host, ":", port);
}

class Meeting {
 public:
  Meeting(const GroupOptions& options, const GroupFacts& facts)
      : options_(options), facts_(facts), members_(options.size - 1), tokens_(options.size - 1) {}

  absl::StatusOr<std::vector<Member>> Run() {
    auto listener = ListenOn("the group", options_.host, options_.port);
    if (!listener.ok()) return listener.status();
    const absl::Time deadline = MonotonicNow() + options_.start;
    Log(absl::StrCat("group: waiting for ", members_.size(), " more ranks on ",
                     NameOf(listener->get(), getsockname)));
    while (!Complete()) {
      if (MonotonicNow() >= deadline) {
        return absl::UnavailableError(absl::StrCat("of the group's ranks ", absl::StrJoin(Missing(), ", "),
                                                   " did not come within ",
                                                   absl::FormatDuration(options_.start)));
      }
      Poll(listener->get(), deadline);
    }
    for (const Member& member : members_) {
      absl::Status sent = SendAll(member.work.get(), kBegin, sizeof(kBegin) - 1, kSendLimit);
      if (!sent.ok()) return absl::UnavailableError(absl::StrCat("a rank left the group: ", sent.message()));
    }
    Log("group: all ranks are there");
    return std::move(members_);
  }

 private:
  struct Stranger {
    ScopedFd socket;
    std::string name, challenge, text;
    absl::Time deadline;
  };

  bool Complete() const { return Missing().empty(); }
  std::vector<int> Missing() const {
    std::vector<int> missing;
    for (size_t i = 0; i < members_.size(); ++i) {
      if (!members_[i].work.ok() || !members_[i].watch.ok()) missing.push_back(static_cast<int>(i) + 1);
    }
    return missing;
  }

  void Poll(int listener, absl::Time deadline) {
    std::vector<pollfd> polled = {{strangers_.size() < kMaxStrangers ? listener : -1, POLLIN, 0}};
    for (const Stranger& s : strangers_) {
      polled.push_back({s.socket.get(), POLLIN, 0});
      deadline = std::min(deadline, s.deadline);
    }
    // Members say nothing before they are told to begin: what comes is their end.
    for (const Member& member : members_) polled.push_back({member.work.get(), POLLIN, 0});
    const absl::Duration left = std::max(absl::ZeroDuration(), deadline - MonotonicNow());
    poll(polled.data(), polled.size(),
         PollTimeout(std::chrono::ceil<std::chrono::milliseconds>(absl::ToChronoNanoseconds(left))));
    for (size_t i = 0; i < members_.size(); ++i) {
      if (polled[1 + strangers_.size() + i].revents == 0) continue;
      Log(absl::StrCat("group: rank ", i + 1, " left before it began"), LogLevel::kWarning);
      members_[i] = {};
    }
    const absl::Time now = MonotonicNow();
    std::erase_if(strangers_, [&](Stranger& s) {
      absl::Status seen = Hear(&s);
      if (seen.ok() && s.socket.ok() && now >= s.deadline)
        seen = absl::DeadlineExceededError("it says nothing");
      if (!seen.ok())
        Log(absl::StrCat("group: ", s.name, " is refused: ", seen.message()), LogLevel::kWarning);
      return !seen.ok() || !s.socket.ok();
    });
    if (polled[0].revents != 0) Accept(listener);
  }

  void Accept(int listener) {
    ScopedFd socket(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.ok()) return;
    const int on = 1;
    setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    const std::string name = NameOf(socket.get(), getpeername), challenge = RandomHex();
    const std::string line = WriteChallenge(challenge);
    if (TrySend(socket.get(), line.data(), line.size()).bytes != line.size()) return;
    strangers_.push_back({std::move(socket), name, challenge, "", MonotonicNow() + kHelloLimit});
  }

  // Reads on; what it has to say when it is said. The socket is moved where it belongs. Not OK: the stranger
  // was refused.
  absl::Status Hear(Stranger* s) {
    char bytes[1024];
    const Moved got = TryReceive(s->socket.get(), bytes, sizeof(bytes));
    if (!got.status.ok()) return got.status;
    s->text.append(bytes, got.bytes);
    if (s->text.size() > kMaxHelloBytes) return absl::InvalidArgumentError("it says too much");
    if (!absl::EndsWith(s->text, "\n\n")) return absl::OkStatus();
    const auto hello = ReadHello(s->text, s->challenge, options_.secret);
    absl::Status fine = hello.status();
    if (fine.ok()) fine = Judge(*hello);
    if (!fine.ok()) {
      const std::string line = WriteRefusal(fine);
      TrySend(s->socket.get(), line.data(), line.size());
      return fine;
    }
    Welcome(*hello, s);
    return absl::OkStatus();
  }

  absl::Status Judge(const Hello& hello) const {
    if (hello.rank < 1 || hello.rank >= options_.size) {
      return absl::OutOfRangeError(
          absl::StrCat("its rank is ", hello.rank, ", and the group's are 0 to ", options_.size - 1));
    }
    const Member& member = members_[hello.rank - 1];
    if (hello.kind == Hello::Kind::kWatch) {
      if (!member.work.ok() || member.watch.ok() || hello.token != tokens_[hello.rank - 1])
        return absl::FailedPreconditionError("its token is not that of the rank");
      return absl::OkStatus();
    }
    if (absl::Status same = CompareFacts(facts_, hello.facts); !same.ok()) return same;
    if (member.work.ok())
      return absl::AlreadyExistsError(absl::StrCat("rank ", hello.rank, " is in the group already"));
    return absl::OkStatus();
  }

  void Welcome(const Hello& hello, Stranger* s) {
    const bool is_work = hello.kind == Hello::Kind::kWork;
    std::string& token = tokens_[hello.rank - 1];
    if (is_work) token = RandomHex();
    const std::string line = WriteWelcome(hello.nonce, token, options_.secret);
    if (TrySend(s->socket.get(), line.data(), line.size()).bytes != line.size()) return s->socket.Reset();
    Member& member = members_[hello.rank - 1];
    (is_work ? member.work : member.watch) = std::move(s->socket);
    if (!is_work) Log(absl::StrCat("group: rank ", hello.rank, " has come, from ", s->name));
  }

  const GroupOptions& options_;
  const GroupFacts& facts_;
  std::vector<Member> members_;      // by rank, from 1
  std::vector<std::string> tokens_;  // theirs
  std::vector<Stranger> strangers_;
};

}  // namespace

absl::StatusOr<std::vector<Member>> AwaitMembers(const GroupOptions& options, const GroupFacts& facts) {
  return Meeting(options, facts).Run();
}

}  // namespace sessa
