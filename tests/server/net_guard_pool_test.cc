// GuardPool with a pair of sockets as each client and the other end of each connection's pair in the test's
// hands, where the HTTP/2 library would be: what passes when, who ends what, and what takes too long.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <deque>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "engine/monotonic.h"
#include "gtest/gtest.h"
#include "server/net/guard_pool.h"

namespace sessa {
namespace {

const std::string kHello =  // the preface and an empty SETTINGS
    std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\0\0\0\4\0\0\0\0\0", 9);
const std::string kPing = std::string("\0\0\10\6\0\0\0\0\0", 9) + "12345678";

class GuardPoolTest : public ::testing::Test {
 protected:
  void Start(GuardOptions options) {
    options.tick = absl::Milliseconds(5);
    pool_ = std::make_unique<GuardPool>(options, &stats_, [this](ScopedFd end) {
      absl::MutexLock lock(&mutex_);
      served_.push_back(std::move(end));
    });
  }
  void SetUp() override { Start({}); }

  ScopedFd Connect() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    const int small = 4096;
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    ScopedFd server(ends[1]);
    fcntl(server.get(), F_SETFL, O_NONBLOCK);
    pool_->Add(std::move(server), nullptr, false);
    return ScopedFd(ends[0]);
  }
  // The library's end of the connection that spoke next; waits for it.
  ScopedFd Served() {
    auto any = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !served_.empty(); };
    absl::MutexLock lock(&mutex_, absl::Condition(&any));
    ScopedFd end = std::move(served_.front());
    served_.pop_front();
    fcntl(end.get(), F_SETFL, 0);  // blocking: the test waits on it
    return end;
  }
  static void Send(const ScopedFd& fd, const std::string& bytes) {
    EXPECT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  static std::string Read(const ScopedFd& fd, size_t size) {
    std::string bytes(size, '\0');
    bytes.resize(std::max<ssize_t>(0, recv(fd.get(), bytes.data(), size, MSG_WAITALL)));
    return bytes;
  }
  // To the end of the connection.
  static std::string ReadAll(const ScopedFd& fd) {
    std::string all;
    for (std::string piece = Read(fd, 4096); !piece.empty(); piece = Read(fd, 4096)) all += piece;
    return all;
  }
  void WaitForCut(Cut reason) {
    while (stats_.cut(Listener::kGrpc, reason) == 0) absl::SleepFor(absl::Milliseconds(1));
  }

  ConnectionStats stats_;
  absl::Mutex mutex_;
  std::deque<ScopedFd> served_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<GuardPool> pool_;
};

TEST_F(GuardPoolTest, BytesPassBothWays) {
  const ScopedFd client = Connect();
  Send(client, kHello + kPing);
  const ScopedFd library = Served();
  EXPECT_EQ(Read(library, kHello.size() + kPing.size()), kHello + kPing);
  Send(library, kPing);
  EXPECT_EQ(Read(client, kPing.size()), kPing);
  EXPECT_EQ(stats_.open(Listener::kGrpc), 1);
}

TEST_F(GuardPoolTest, TheLibraryHearsOfThoseAloneThatSpeakHttp2) {
  const ScopedFd silent = Connect(), half = Connect(), other = Connect(), client = Connect();
  Send(half, kHello.substr(0, kHello.size() - 1));
  Send(other, "GET / HTTP/1.1\r\n\r\n");
  ReadAll(other);
  EXPECT_EQ(stats_.cut(Listener::kGrpc, Cut::kProtocol), 1);
  Send(client, kHello);
  Served();
  absl::MutexLock lock(&mutex_);
  EXPECT_TRUE(served_.empty());
}

TEST_F(GuardPoolTest, WhenTheClientLeavesTheLibraryHearsIt) {
  ScopedFd client = Connect();
  Send(client, kHello);
  const ScopedFd library = Served();
  client.Reset();
  EXPECT_EQ(ReadAll(library), kHello);
}

TEST_F(GuardPoolTest, WhenTheLibraryClosesTheClientReadsAllThatItWrote) {
  const ScopedFd client = Connect();
  Send(client, kHello);
  ScopedFd library = Served();
  const std::string last = std::string("\0\x40\0\0\0\0\0\0\1", 9) + std::string(1 << 14, 'x');
  for (int i = 0; i < 4; ++i) Send(library, last);
  library.Reset();
  EXPECT_EQ(ReadAll(client).size(), 4 * last.size());
}

TEST_F(GuardPoolTest, AFloodEndsWithGoAwayAndTheLibraryHearsNoneOfTheRest) {
  const ScopedFd client = Connect();
  Send(client, kHello);
  const ScopedFd library = Served();
  std::string flood;
  for (int i = 0; i < 1000; ++i) flood += kPing;
  send(client.get(), flood.data(), flood.size(), MSG_NOSIGNAL);
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  EXPECT_EQ(ReadAll(client), GoAway(Cut::kPings, /*is_first=*/true));
  EXPECT_EQ(stats_.cut(Listener::kGrpc, Cut::kPings), 1);
  EXPECT_LT(ReadAll(library).size(), kHello.size() + 300 * kPing.size());
}

TEST_F(GuardPoolTest, SilenceAtTheBeginningTakesTooLong) {
  GuardOptions options;
  options.handshake_timeout = absl::Milliseconds(20);
  Start(options);
  const ScopedFd client = Connect();
  Send(client, kHello.substr(0, 30));
  EXPECT_NE(ReadAll(client), "");  // GOAWAY
  EXPECT_EQ(stats_.cut(Listener::kGrpc, Cut::kHandshake), 1);
}

TEST_F(GuardPoolTest, AFrameThatDoesNotEndTakesTooLong) {
  GuardOptions options;
  options.frame_timeout = absl::Milliseconds(20);
  Start(options);
  const ScopedFd client = Connect();
  Send(client, kHello + kPing.substr(0, 5));
  const ScopedFd library = Served();
  WaitForCut(Cut::kSlowWriter);
  EXPECT_EQ(ReadAll(library), kHello + kPing.substr(0, 5));
}

TEST_F(GuardPoolTest, AReaderThatDoesNotReadTakesTooLong) {
  GuardOptions options;
  options.write_timeout = absl::Milliseconds(50);
  Start(options);
  const ScopedFd client = Connect();
  Send(client, kHello);
  const ScopedFd library = Served();
  const std::string data = std::string("\0\x40\0\0\0\0\0\0\1", 9) + std::string(1 << 14, 'x');
  // Goes on until the connection is closed under it; what the server holds of it is bounded, so that comes.
  while (send(library.get(), data.data(), data.size(), MSG_NOSIGNAL) > 0) {
  }
  EXPECT_EQ(stats_.cut(Listener::kGrpc, Cut::kSlowReader), 1);
  EXPECT_LT(ReadAll(client).size(), 1u << 20);
}

TEST_F(GuardPoolTest, ALibraryThatDoesNotReadHoldsUpTheClient) {
  const ScopedFd client = Connect();
  Send(client, kHello);
  const ScopedFd library = Served();
  fcntl(client.get(), F_SETFL, O_NONBLOCK);
  const std::string data = std::string("\0\x40\0\0\0\0\0\0\1", 9) + std::string(1 << 14, 'x');
  size_t sent = 0;
  // Full for as long as 100 ms is full for good: nothing else can change it.
  for (pollfd waited = {client.get(), POLLOUT, 0}; poll(&waited, 1, 100) > 0;) {
    const ssize_t n =
        send(client.get(), data.data() + sent % data.size(), data.size() - sent % data.size(), 0);
    ASSERT_GT(n, 0);
    sent += n;
    ASSERT_LT(sent, 4u << 20) << "it is kept somewhere";
  }
  fcntl(client.get(), F_SETFL, 0);
  EXPECT_EQ(Read(library, kHello.size() + sent).size(), kHello.size() + sent);
}

TEST_F(GuardPoolTest, ShutdownWaitsForTheLibraryAndForNobodyElse) {
  const ScopedFd silent = Connect(), client = Connect();
  Send(client, kHello);
  ScopedFd library = Served();
  pool_->BeginShutdown();
  EXPECT_EQ(ReadAll(silent), "");
  Send(library, kPing);
  library.Reset();
  pool_->Shutdown(MonotonicNow() + absl::Seconds(60));
  EXPECT_EQ(ReadAll(client), kPing);
  EXPECT_EQ(stats_.open(Listener::kGrpc), 0);
  const ScopedFd late = Connect();
  EXPECT_EQ(ReadAll(late), "");
}

TEST_F(GuardPoolTest, ShutdownEndsAtItsDeadlineWhatDoesNotEnd) {
  const ScopedFd client = Connect();
  Send(client, kHello);
  const ScopedFd library = Served();
  pool_->Shutdown(MonotonicNow());
  EXPECT_EQ(ReadAll(client), "");
  EXPECT_EQ(stats_.open(Listener::kGrpc), 0);
}

}  // namespace
}  // namespace sessa
