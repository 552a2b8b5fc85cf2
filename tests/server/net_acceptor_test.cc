// The acceptor goes on whatever happens to a connection: a handler that throws, no descriptor left. And the
// caps on connections stay below the limit of descriptors.
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <new>
#include <vector>

#include "gtest/gtest.h"
#include "server/net/acceptor.h"
#include "server/net/descriptors.h"

namespace sessa {
namespace {

ScopedFd Connect(int port) {
  ScopedFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// Waits for a byte or the connection's end, which is 0 or an error.
ssize_t ReadByte(const ScopedFd& fd) {
  char byte;
  return recv(fd.get(), &byte, 1, 0);
}

// Says 'x' to each client and closes.
void Greet(ScopedFd socket, bool) { EXPECT_EQ(send(socket.get(), "x", 1, MSG_NOSIGNAL), 1); }

std::unique_ptr<Acceptor> Listen(ConnectionStats* stats) {
  auto acceptor = Acceptor::Listen("test", "127.0.0.1", 0, Listener::kHttp, stats);
  EXPECT_TRUE(acceptor.ok()) << acceptor.status();
  return *std::move(acceptor);
}

TEST(AcceptorTest, GoesOnAfterAHandlerThatThrows) {
  ConnectionStats stats;
  const auto acceptor = Listen(&stats);
  int count = 0;
  acceptor->Start([&count](ScopedFd socket, bool is_own) {
    if (++count <= 3) throw std::bad_alloc();
    Greet(std::move(socket), is_own);
  });
  for (int i = 0; i < 3; ++i) EXPECT_LE(ReadByte(Connect(acceptor->port())), 0);
  EXPECT_EQ(ReadByte(Connect(acceptor->port())), 1);
  EXPECT_EQ(stats.refused(Listener::kHttp, Refusal::kError), 3);
}

// In a process of its own: the limit is everybody's.
void UseUpDescriptors() {
  ConnectionStats stats;
  const auto acceptor = Listen(&stats);
  acceptor->Start(Greet);
  {  // Its thread runs, for which UBSan takes descriptors, and its socket is closed again.
    const ScopedFd first = Connect(acceptor->port());
    if (ReadByte(first) != 1 || ReadByte(first) > 0) _exit(9);
  }
  std::vector<ScopedFd> clients;
  for (int i = 0; i < 5; ++i) {  // connected in the kernel, before the last descriptor is gone
    clients.push_back(ScopedFd(socket(AF_INET, SOCK_STREAM, 0)));
  }
  const rlimit few = {64, 64};
  if (setrlimit(RLIMIT_NOFILE, &few) != 0) _exit(10);
  std::vector<ScopedFd> all;
  while (true) {
    ScopedFd fd(open("/dev/null", O_RDONLY));
    if (!fd.ok()) break;
    all.push_back(std::move(fd));
  }
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(acceptor->port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (const ScopedFd& client : clients) {
    if (connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) _exit(11);
    if (ReadByte(client) > 0) _exit(12);  // turned away, and at once: this does not wait for ever
  }
  if (stats.refused(Listener::kHttp, Refusal::kDescriptors) != 5) _exit(13);
  all.clear();
  clients.clear();
  for (int i = 0; i < 5; ++i) {
    if (ReadByte(Connect(acceptor->port())) != 1) _exit(14);  // as if nothing had been
  }
  _exit(0);
}

TEST(AcceptorTest, WithoutADescriptorTurnsAwayAndRecovers) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(UseUpDescriptors(), ::testing::ExitedWithCode(0), "");
}

TEST(AcceptorTest, ThePortIsFreeAfterStop) {
  ConnectionStats stats;
  auto acceptor = Listen(&stats);
  const int port = acceptor->port();
  acceptor->Start(Greet);
  EXPECT_FALSE(Acceptor::Listen("test", "127.0.0.1", port, Listener::kHttp, &stats).ok());
  acceptor->Stop();
  EXPECT_TRUE(Acceptor::Listen("test", "127.0.0.1", port, Listener::kHttp, &stats).ok());
}

TEST(AcceptorTest, BadAddressIsNamed) {
  ConnectionStats stats;
  const auto acceptor = Acceptor::Listen("REST", "no.such.host.invalid", 1, Listener::kHttp, &stats);
  EXPECT_NE(acceptor.status().message().find("REST cannot listen on no.such.host.invalid:1"),
            std::string::npos)
      << acceptor.status();
}

TEST(AcceptorTest, ListensOnIpv6) {
  ConnectionStats stats;
  auto acceptor = Acceptor::Listen("test", "::1", 0, Listener::kHttp, &stats);
  if (!acceptor.ok()) GTEST_SKIP() << acceptor.status();  // a machine without
  (*acceptor)->Start(Greet);
  EXPECT_EQ(*(*acceptor)->AskSelf("", 1, absl::Seconds(60)), "x");
}

TEST(AcceptorTest, AskSelfTellsAListenerThatDoesNotAnswer) {
  ConnectionStats stats;
  const auto acceptor = Listen(&stats);
  // The kernel takes the connection though nobody accepts it.
  EXPECT_EQ(acceptor->AskSelf("", 1, absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::vector<bool> own;
  acceptor->Start([&own](ScopedFd socket, bool is_own) {
    own.push_back(is_own);
    Greet(std::move(socket), is_own);
  });
  EXPECT_EQ(*acceptor->AskSelf("", 1, absl::Seconds(60)), "x");
  EXPECT_EQ(ReadByte(Connect(acceptor->port())), 1);
  acceptor->Stop();
  EXPECT_EQ(own, std::vector<bool>({false, true, false})) << "the first was given up before it was accepted";
}

TEST(DescriptorsTest, CapsFitBelowTheLimit) {
  const ConnectionCaps wanted = {4096, 1024};
  EXPECT_EQ(FitConnections(wanted, 1 << 20).http, 4096);
  EXPECT_EQ(FitConnections(wanted, 4096 + 3 * 1024 + 256).grpc, 1024);  // just
  EXPECT_LT(FitConnections(wanted, 4096 + 3 * 1024 + 255).http, 4096);
  for (int limit : {16, 64, 256, 1024, 4096, 7000}) {
    const ConnectionCaps caps = FitConnections(wanted, limit);
    EXPECT_LE(caps.http + kDescriptorsOfGrpc * caps.grpc, limit - std::min(256, limit / 4) + 4) << limit;
    EXPECT_GE(caps.grpc, 1) << limit;
    EXPECT_GE(caps.http, 1) << limit;
  }
  EXPECT_GE(FitConnections(wanted, 1024).http, 400);
}

}  // namespace
}  // namespace sessa
