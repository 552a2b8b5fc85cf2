// REST: requests that a client sends ahead, behind one that takes its time, are answered in order, however
// many bytes they are: what does not fit waits in the client's socket.
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_join.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

constexpr char kCompletions[] = "/v1/completions";

class RestPipelineTest : public RestTest {
 protected:
  void SetUp() override {
    Start({});
    Load();
    engine_->Hold();  // the first request waits until all is sent, or as much as goes
  }
  // Sends `bytes` beside, and lets the first request go on meanwhile.
  void SendAhead(HttpClient* client, const std::string& bytes) {
    sender_ = std::thread([client, bytes] { client->Send(bytes); });
    absl::SleepFor(absl::Milliseconds(50));  // some of it is there by then
    engine_->Release();
  }
  void TearDown() override {
    if (sender_.joinable()) sender_.join();
    RestTest::TearDown();
  }

  std::thread sender_;
};

std::string Generate(bool stream) {
  return RequestBytes(
      "POST", kCompletions,
      absl::StrCat(R"({"prompt": [7], "max_tokens": 3, "stream": )", stream ? "true" : "false", "}"));
}

TEST_F(RestPipelineTest, ManySmallRequests) {
  constexpr int kNum = 5000;
  for (const bool stream : {false, true}) {
    engine_->Hold();
    std::string bytes = Generate(stream);
    for (int i = 0; i < kNum; ++i) {
      bytes += RequestBytes("GET", "/livez", "", {{"X-Request-Id", absl::StrCat("probe-", i)}});
    }
    HttpClient client(server_->port());
    SendAhead(&client, bytes);
    const HttpReply first = client.Read();
    EXPECT_EQ(first.status, 200);
    if (stream) {
      EXPECT_EQ(first.Events().back(), "[DONE]");
    }
    for (int i = 0; i < kNum; ++i) ASSERT_EQ(client.Read().Header("X-Request-Id"), absl::StrCat("probe-", i));
    sender_.join();
  }
}

TEST_F(RestPipelineTest, ALargeBody) {
  const std::string body = absl::StrCat(R"({"max_tokens": 1, "truncate_prompt_tokens": 2, "prompt": [)",
                                        absl::StrJoin(std::vector<int>(1 << 20, 5), ","), "]}");
  HttpClient client(server_->port());
  SendAhead(&client, Generate(true) + RequestBytes("POST", kCompletions, body) + Generate(false) +
                         RequestBytes("GET", "/livez"));
  EXPECT_EQ(client.Read().Events().back(), "[DONE]");
  EXPECT_EQ(client.Read().Json().at("usage").at("prompt_tokens"), 2);
  EXPECT_EQ(client.Read().Json().at("usage").at("prompt_tokens"), 1);
  EXPECT_EQ(client.Read().Json().at("status"), "ok");
}

TEST_F(RestPipelineTest, ManyGenerations) {
  constexpr int kNum = 600;
  std::string bytes;
  for (int i = 0; i < kNum; ++i) {
    bytes +=
        RequestBytes("POST", kCompletions, absl::StrCat(R"({"max_tokens": 1, "prompt": [)", 100 + i, "]}"),
                     {{"X-Request-Id", absl::StrCat(i, "-", std::string(100, 'x'))}});
  }
  HttpClient client(server_->port());
  SendAhead(&client, bytes);
  for (int i = 0; i < kNum; ++i) {
    const HttpReply reply = client.Read();
    ASSERT_EQ(reply.status, 200);
    ASSERT_EQ(reply.Header("X-Request-Id").substr(0, 3), absl::StrCat(i, "-xx").substr(0, 3));
  }
  EXPECT_EQ(engine_->num_submitted(), kNum);
}

TEST_F(RestPipelineTest, AClientThatSentAllAndClosedItsSideIsAnswered) {
  engine_->Release();
  HttpClient client(server_->port());
  std::string bytes;
  for (int i = 0; i < 500; ++i) bytes += RequestBytes("GET", "/livez");
  client.Send(bytes);
  client.FinishSending();
  for (int i = 0; i < 500; ++i) ASSERT_EQ(client.Read().status, 200);
  EXPECT_EQ(client.ReadAll(), "");
}

}  // namespace
}  // namespace sessa
