// Refusals are cheap, and probes wait for nobody: what a full queue refuses is not read, parsed or tokenised,
// and long bodies are worked on beside the threads that answer.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kCompletions[] = "/v1/completions";

// A prompt of token ids in a body of more than `bytes`, cut to its last id.
std::string LongBody(size_t bytes) {
  return absl::StrCat(R"({"max_tokens": 1, "truncate_prompt_tokens": 1, "prompt": [)",
                      absl::StrJoin(std::vector<int>(bytes / 2, 1), ","), "]}");
}

class RestOverloadTest : public RestTest {
 protected:
  void SetUp() override {
    Start({});
    Load();
  }
  // The longest text that may have so few tokens.
  std::string TextOf(int min_tokens) const {
    std::string text;
    while (tokenizer_->MinTokens(text.size() + 1) <= min_tokens) text += 'x';
    return text;
  }
};

TEST_F(RestOverloadTest, AFullQueueRefusesBeforeTheBodyIsParsed) {
  engine_->LimitQueue(0);
  const HttpReply refused = Complete("{this is no JSON");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Error("code"), "overloaded");
  EXPECT_EQ(refused.Header("Retry-After"), "7");  // the engine says 6.5 s
  EXPECT_NE(refused.Header("Connection"), "close");
  EXPECT_EQ(Outcomes(Outcome::kRejected), 1);
  engine_->LimitQueue(1);
  EXPECT_EQ(Complete("{this is no JSON").status, 400);
}

TEST_F(RestOverloadTest, AFullQueueRefusesALongBodyBeforeItIsRead) {
  engine_->LimitQueue(0);
  HttpClient client(server_->port());
  client.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
                           "Content-Length: ", TextPool::kLongBytes + 1, "\r\n\r\n"));
  const HttpReply refused = client.Read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Header("Retry-After"), "7");
  EXPECT_EQ(refused.Header("Connection"), "close");
  EXPECT_EQ(Outcomes(Outcome::kRejected), 1);
}

TEST_F(RestOverloadTest, WhatIsTooLongByItsBytesIsNotTokenised) {
  const auto complete = [this](const std::string& text) {
    return Complete(absl::StrCat(R"({"max_tokens": 1, "prompt": ")", text, "\"}"));
  };
  ASSERT_GT(tokenizer_->MinTokens(1000), 0);
  const std::string fits = TextOf(63);  // of a context of 64; really it has more
  EXPECT_EQ(complete(fits).status, 400);
  EXPECT_THAT(complete(fits).Error("message"), Not(HasSubstr("at least")));
  const HttpReply refused = complete(fits + "x");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.Error("code"), "context_length_exceeded");
  EXPECT_EQ(refused.Error("param"), "prompt");
  EXPECT_THAT(refused.Error("message"), HasSubstr("at least 64"));
  const HttpReply chat = Post("/v1/chat/completions",
                              absl::StrCat(R"({"messages": [{"role": "user", "content": ")", fits, "x\"}]}"));
  EXPECT_EQ(chat.Error("param"), "messages");
  EXPECT_THAT(chat.Error("message"), HasSubstr("at least"));
}

TEST_F(RestOverloadTest, WhatTheQueueCannotHoldByItsBytesIsNotTokenised) {
  engine_->LimitQueue(3);
  const auto complete = [this](const std::string& text) {
    return Complete(absl::StrCat(R"({"max_tokens": 1, "prompt": ")", text, "\"}"));
  };
  EXPECT_EQ(complete(TextOf(3)).status, 503);  // its bytes may be 3 tokens; it is tokenised, and has more
  EXPECT_EQ(engine_->num_queue_refusals(), 1);
  EXPECT_EQ(complete(TextOf(3) + "x").status, 503);
  EXPECT_EQ(engine_->num_queue_refusals(), 1);  // never came to be submitted
  EXPECT_EQ(Complete(R"({"max_tokens": 1, "prompt": [[1, 2, 3], [1, 2, 3, 4]]})").status, 503);
  EXPECT_EQ(engine_->num_queue_refusals(), 1);
  EXPECT_EQ(Complete(R"({"max_tokens": 1, "prompt": [[1, 2, 3], [1, 2, 3]]})").status, 200);
  EXPECT_EQ(Outcomes(Outcome::kRejected), 3);
}

TEST_F(RestOverloadTest, ProbesDoNotWaitForLongBodies) {
  engine_->Hold();
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 12; ++i) {  // more than there are threads of any kind
    clients.push_back(std::make_unique<HttpClient>(server_->port()));
    clients.back()->Send(RequestBytes("POST", kCompletions, LongBody(TextPool::kLongBytes)));
  }
  for (const char* path : {"/livez", "/readyz", "/metrics"}) EXPECT_EQ(Call("GET", path).status, 200);
  clients.resize(6);  // the others leave
  engine_->Release();
  for (auto& client : clients) EXPECT_EQ(client->Read().status, 200);
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  EXPECT_EQ(service_->metrics().received(), 12);
  EXPECT_EQ(service_->metrics().ended(), 12);
}

TEST_F(RestOverloadTest, LongBodiesThatWaitAreBounded) {
  ServiceOptions options;
  options.num_text_threads = 1;
  options.limits.max_waiting_text_bytes = 1;  // one, as an empty queue takes any
  Start(std::move(options));
  Load();
  engine_->Hold();
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(std::make_unique<HttpClient>(server_->port()));
    clients.back()->Send(RequestBytes("POST", kCompletions, LongBody(TextPool::kLongBytes)));
  }
  // One is worked on and one waits, or the first waited still when the others came.
  const auto refused = [this]() { return Outcomes(Outcome::kRejected) >= 4; };
  while (!refused()) absl::SleepFor(absl::Milliseconds(1));
  engine_->Release();
  int served = 0;
  for (auto& client : clients) {
    const HttpReply reply = client->Read();
    if (reply.status == 200) {
      ++served;
    } else {
      EXPECT_EQ(reply.status, 503);
      EXPECT_EQ(reply.Header("Retry-After"), "1");
    }
  }
  EXPECT_GE(served, 1);
  EXPECT_LE(served, 2);
}

}  // namespace
}  // namespace sessa
