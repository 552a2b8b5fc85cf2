// The rest of a long body is read by a thread that leaves the cores to others; all else of its connection,
// and short bodies, are not. On a connection whose threads are this test's, which chooses what runs.
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/strand.hpp"
#include "gmock/gmock.h"
#include "server/rest/connection.h"
#include "server/rest/yielding_executor.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

namespace net = boost::asio;

using ::testing::StartsWith;

constexpr size_t kLong = 64 << 10;  // from so many bytes on

// A request for which so many bytes of body are sent.
std::string Padded(size_t body_bytes) {
  std::string body = R"({"prompt": "a")";
  body.append(body_bytes - body.size() - 1, ' ').append("}");
  return RequestBytes("POST", "/tokenize", body);
}

class RestLongBodyTest : public RestTest {
 protected:
  void SetUp() override {
    ServiceOptions options;
    options.num_text_threads = 0;  // who posts a text works on it
    options.limits.max_body_bytes = 4 * kLong;
    Start(std::move(options));
    Load();
    io_ = std::make_shared<Contexts>();
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    client_ = ends[1];
    net::ip::tcp::socket socket(
        net::make_strand(YieldingExecutor(io_->usual.get_executor(), io_->nicer.get_executor())));
    socket.assign(net::ip::tcp::v4(), ends[0]);  // any stream socket's descriptor does
    connection_ = MakeConnection(
        {io_, &io_->usual}, std::move(socket), nullptr,
        std::make_shared<ConnectionContext>(
            RestServerOptions(), service_.get(), Handlers::Scope::kAll,
            std::make_shared<ConnectionRegistry>(Listener::kHttp, &service_->metrics().connections())));
    connection_->Start();
  }
  void TearDown() override {
    connection_.reset();
    io_.reset();
    if (client_ >= 0) close(client_);
    RestTest::TearDown();
  }

  void Send(const std::string& bytes) { unsent_ += bytes; }
  // What is answered once all has run that can, on the usual threads and on the nicer ones if `nicer`.
  std::string Answer(bool nicer) {
    char buffer[4 << 10];
    std::string answer;
    for (bool moved = true; moved;) {
      const ssize_t sent = unsent_.empty() ? 0 : send(client_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
      if (sent > 0) unsent_.erase(0, sent);
      moved = sent > 0;
      moved = io_->usual.poll() > 0 || moved;
      if (nicer) moved = io_->nicer.poll() > 0 || moved;
      io_->usual.restart(), io_->nicer.restart();
      for (ssize_t n; (n = recv(client_, buffer, sizeof(buffer), 0)) > 0; moved = true)
        answer.append(buffer, n);
    }
    return answer;
  }

  struct Contexts {
    net::io_context usual, nicer;
  };
  std::shared_ptr<Contexts> io_;
  std::shared_ptr<Connection> connection_;
  std::string unsent_;
  int client_ = -1;
};

TEST_F(RestLongBodyTest, ItsRestWaitsForTheNicerThread) {
  Send(Padded(3 * kLong));
  EXPECT_EQ(Answer(/*nicer=*/false), "");
  EXPECT_THAT(Answer(/*nicer=*/true), StartsWith("HTTP/1.1 200 "));
}

TEST_F(RestLongBodyTest, AShortOneDoesNot) {
  Send(Padded(kLong));
  EXPECT_THAT(Answer(/*nicer=*/false), StartsWith("HTTP/1.1 200 "));
}

TEST_F(RestLongBodyTest, NorDoesWhatComesAfterIt) {
  Send(Padded(3 * kLong));
  EXPECT_THAT(Answer(/*nicer=*/true), StartsWith("HTTP/1.1 200 "));
  Send(RequestBytes("GET", "/livez"));
  EXPECT_THAT(Answer(/*nicer=*/false), StartsWith("HTTP/1.1 200 "));
}

TEST_F(RestLongBodyTest, OneWhoseLengthIsNotSaidWaitsTooUntilItIsTooLong) {
  const std::string chunk = absl::StrCat("10000\r\n", std::string(kLong, ' '), "\r\n");
  Send(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: "
      "chunked\r\n\r\n");
  for (int i = 0; i < 5; ++i) Send(chunk);
  EXPECT_EQ(Answer(/*nicer=*/false), "");
  EXPECT_THAT(Answer(/*nicer=*/true), StartsWith("HTTP/1.1 413 "));
}

TEST_F(RestLongBodyTest, ConnectionsEndWithinOne) {
  std::weak_ptr<Connection> connection = connection_;
  Send(Padded(3 * kLong).substr(0, 2 * kLong));
  EXPECT_EQ(Answer(/*nicer=*/true), "");
  connection_->ForceClose();
  connection_.reset();
  EXPECT_EQ(Answer(/*nicer=*/true), "");
  EXPECT_TRUE(connection.expired());
}

// How many threads of this process have a nice value.
int NumThreads(int nice) {
  int count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    int id = 0;
    EXPECT_TRUE(absl::SimpleAtoi(task.path().filename().string(), &id));
    count += getpriority(PRIO_PROCESS, id) == nice;
  }
  return count;
}

TEST_F(RestLongBodyTest, AServerHasAThreadForThem) {
  const int own = getpriority(PRIO_PROCESS, 0), nicer = std::min(own + TextPool::kLongNice, 19);
  if (nicer == own) GTEST_SKIP() << "nobody is nicer than this process";
  server_->Shutdown(MonotonicNow());
  EXPECT_EQ(NumThreads(nicer), 0);
  auto server = RestServer::Start({}, service_.get());
  ASSERT_TRUE(server.ok()) << server.status();
  while (NumThreads(nicer) != 1) absl::SleepFor(absl::Milliseconds(1));
}

}  // namespace
}  // namespace sessa
