// How processes come together to a group, over real connections within one process: strangers, half a
// greeting, wrong secrets, versions and ranks keep nobody out who belongs there; and what each sees of the
// others' ends.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/group/process_group.h"

namespace sessa {
namespace {

using testing::HasSubstr;

const GroupFacts kFacts = {{"the version", "1.2.3"}, {"--page_size", "64"}};

// A port of the loopback's that nobody has: the leader's own choice is not told before all have come.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

// A connection that speaks as it likes.
class Raw {
 public:
  explicit Raw(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    // The leader's thread may not listen yet.
    while (connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::string Line() {
    std::string line;
    char byte = 0;
    while (recv(fd_.get(), &byte, 1, 0) == 1) {
      line += byte;
      if (byte == '\n') break;
    }
    return line;  // "" at the end
  }
  void Say(const std::string& text) { (void)!send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL); }
  // The leader's answer to a hello, with the challenge that it sent.
  std::string Greet(const Hello& hello, const std::string& secret = "") {
    Say(WriteHello(hello, *ReadChallenge(Line()), secret));
    return Line();
  }

 private:
  ScopedFd fd_;
};

GroupOptions Options(int port, int rank, int size, std::string secret = "") {
  return {rank, size, "127.0.0.1", port, std::move(secret), absl::Seconds(600), absl::Minutes(10)};
}

// What a process hears of its group.
struct Heard {
  GroupEvents events() {
    return {[this](const absl::Status& why) {
              MutexLock lock(&mutex);
              lost = why;
              news.notify_all();
            },
            [this](int rank) {
              MutexLock lock(&mutex);
              asked = rank;
              news.notify_all();
            }};
  }
  absl::Status WaitForLoss() {
    MutexLock lock(&mutex);
    while (!lost.has_value()) news.wait(mutex);
    return *lost;
  }
  int WaitForStop() {
    MutexLock lock(&mutex);
    while (asked == 0) news.wait(mutex);
    return asked;
  }
  Mutex mutex;
  std::condition_variable_any news;
  std::optional<absl::Status> lost ABSL_GUARDED_BY(mutex);
  int asked ABSL_GUARDED_BY(mutex) = 0;
};

class GroupTest : public testing::Test {
 protected:
  void Lead(int size, std::string secret = "") {
    leader_ = std::thread([this, size, secret] {
      auto formed = ProcessGroup::Form(Options(port_, 0, size, secret), kFacts, heard_[0].events());
      ASSERT_TRUE(formed.ok()) << formed.status();
      groups_[0] = *std::move(formed);
    });
  }
  absl::Status Join(int rank, int size, GroupFacts facts = kFacts, std::string secret = "") {
    auto formed =
        ProcessGroup::Form(Options(port_, rank, size, std::move(secret)), facts, heard_[rank].events());
    if (!formed.ok()) return formed.status();
    groups_[rank] = *std::move(formed);
    return absl::OkStatus();
  }
  void Form(absl::Duration silence = absl::Seconds(600)) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank) {
      threads.emplace_back([&, rank] {
        GroupOptions options = Options(port_, rank, 3);
        options.silence = silence;
        auto formed = ProcessGroup::Form(options, kFacts, heard_[rank].events());
        ASSERT_TRUE(formed.ok()) << formed.status();
        groups_[rank] = *std::move(formed);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  ~GroupTest() override {
    if (leader_.joinable()) leader_.join();
  }
  const int port_ = FreePort();
  Heard heard_[3];
  std::shared_ptr<ProcessGroup> groups_[3];
  std::thread leader_;
};

TEST_F(GroupTest, FormsAndHearsWords) {
  Form();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      const auto words = groups_[rank]->ranks()->Share(absl::StrCat("of ", rank));
      ASSERT_TRUE(words.ok()) << words.status();
      EXPECT_EQ(*words, (std::vector<std::string>{"of 0", "of 1", "of 2"}));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(GroupTest, WhoDoesNotBelongThereIsToldAndKeepsNobodyOut) {
  Lead(2);
  Raw silent(port_), half(port_);
  half.Say("kind=work\nrank=1\n");
  Raw garbage(port_);
  EXPECT_THAT(garbage.Line(), HasSubstr("sessa-group 1 "));
  garbage.Say("GET / HTTP/1.1\r\nHost: x\n\n");
  EXPECT_THAT(garbage.Line(), HasSubstr("refused not a rank's greeting"));
  EXPECT_EQ(garbage.Line(), "");
  Raw endless(port_);
  endless.Line();
  endless.Say(std::string(kMaxHelloBytes + 1, 'x'));
  EXPECT_EQ(endless.Line(), "");

  EXPECT_THAT(Raw(port_).Greet({Hello::Kind::kWork, 0, "n", "", kFacts}), HasSubstr("refused its rank is 0"));
  EXPECT_THAT(Raw(port_).Greet({Hello::Kind::kWork, 2, "n", "", kFacts}), HasSubstr("refused its rank is 2"));
  EXPECT_THAT(Raw(port_).Greet({Hello::Kind::kWatch, 1, "n", "00", {}}), HasSubstr("refused its token"));
  GroupFacts other = kFacts;
  other[0].second = "1.2.4";
  EXPECT_THAT(std::string(Join(1, 2, other).message()),
              HasSubstr("the leader refuses this rank: the version is 1.2.4, and 1.2.3 with the leader"));
  other = kFacts;
  other[1].second = "16";
  EXPECT_THAT(std::string(Join(1, 2, other).message()),
              HasSubstr("--page_size is 16, and 64 with the leader"));
  other.pop_back();
  EXPECT_THAT(std::string(Join(1, 2, other).message()), HasSubstr("another version"));
  EXPECT_THAT(std::string(Join(1, 2, kFacts, "a secret of many words").message()), HasSubstr("secret"));

  // One that has come and gone leaves its place.
  {
    Raw gone(port_);
    EXPECT_THAT(gone.Greet({Hello::Kind::kWork, 1, "n", "", kFacts}), HasSubstr("welcome "));
    EXPECT_THAT(Raw(port_).Greet({Hello::Kind::kWork, 1, "n", "", kFacts}),
                HasSubstr("refused rank 1 is in the group already"));
  }
  absl::Status joined;
  do {  // until the leader has seen that it is gone
    joined = Join(1, 2);
  } while (absl::IsFailedPrecondition(joined));
  EXPECT_TRUE(joined.ok()) << joined;
}

TEST_F(GroupTest, ASecretIsKnownToBoth) {
  const std::string secret = "correct horse battery";
  Lead(2, secret);
  EXPECT_THAT(std::string(Join(1, 2).message()), HasSubstr("--group_secret_file"));
  EXPECT_THAT(std::string(Join(1, 2, kFacts, "another secret, as long").message()),
              HasSubstr("--group_secret_file"));
  EXPECT_TRUE(Join(1, 2, kFacts, secret).ok());
}

// The leader must prove that it knows the secret, too.
TEST_F(GroupTest, AFalseLeaderIsNotObeyed) {
  const std::string line = WriteWelcome("nonce", "token", "the secret of others");
  EXPECT_EQ(ReadAnswer(line, "nonce", "the secret of others").value(), "token");
  EXPECT_EQ(ReadAnswer(line, "nonce", "our own secret").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ReadAnswer(line, "an other nonce", "the secret of others").status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(GroupTest, WhoIsLateIsNamed) {
  GroupOptions options = Options(port_, 0, 4);
  options.start = absl::Milliseconds(20);
  const absl::Status late = ProcessGroup::Form(options, kFacts, {}).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(late.message()), HasSubstr("ranks 1, 2, 3 did not come within 20ms"));
  options.rank = 1;
  const absl::Status alone = ProcessGroup::Form(options, kFacts, {}).status();
  EXPECT_EQ(alone.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(alone.message()), HasSubstr("did not take this rank within 20ms: "));
}

TEST_F(GroupTest, AProcessThatSaysWhyItEnds) {
  Form();
  groups_[2]->Fail(absl::NotFoundError("the tensor x is missing"));
  EXPECT_EQ(heard_[0].WaitForLoss(), absl::UnavailableError("rank 2 is lost: the tensor x is missing"));
  EXPECT_EQ(groups_[0]->ranks()->status(), absl::UnavailableError("rank 2 is lost: the tensor x is missing"));
}

TEST_F(GroupTest, AnEndInGoodOrderIsNoLoss) {
  Form();
  for (int rank = 0; rank < 3; ++rank) groups_[rank].reset();  // any order is fine
  for (Heard& heard : heard_) {
    MutexLock lock(&heard.mutex);
    EXPECT_FALSE(heard.lost.has_value()) << *heard.lost;
  }
}

TEST_F(GroupTest, ARankThatIsAskedToStopAsksTheLeader) {
  Form();
  groups_[1]->AskToStop();
  EXPECT_EQ(heard_[0].WaitForStop(), 1);
}

TEST(GroupWatchTest, SilenceAndTheEndOfAConnectionAreLosses) {
  for (const bool closes : {true, false}) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ScopedFd other(pair[1]);
    Heard heard;
    std::vector<GroupWatch::Peer> peers;
    peers.push_back({3, ScopedFd(pair[0])});
    const absl::Duration silence = closes ? absl::Seconds(600) : absl::Milliseconds(50);
    GroupWatch watch(std::move(peers), silence, {heard.events().on_lost, heard.events().on_stop});
    if (closes) other.Reset();
    EXPECT_EQ(heard.WaitForLoss(),
              absl::UnavailableError(absl::StrCat("rank 3 is lost: ",
                                                  closes ? "the connection was closed" : "silent for 50ms")));
  }
}

TEST(GroupWatchTest, WhatIsNoSignOfLifeIsALoss) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const ScopedFd other(pair[1]);
  Heard heard;
  std::vector<GroupWatch::Peer> peers;
  peers.push_back({1, ScopedFd(pair[0])});
  GroupWatch watch(std::move(peers), absl::Seconds(600), {heard.events().on_lost, heard.events().on_stop});
  ASSERT_EQ(write(other.get(), "bbsbX", 5), 5);
  EXPECT_EQ(heard.WaitForStop(), 1);
  EXPECT_THAT(std::string(heard.WaitForLoss().message()), HasSubstr("no sign of life"));
}

}  // namespace
}  // namespace sessa
