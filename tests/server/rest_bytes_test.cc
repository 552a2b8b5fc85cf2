// REST holds no more bytes for its clients than it may: the size of an answer is bounded before it is begun,
// bodies and answers share one budget, who does not send or read is found.
#include <memory>
#include <regex>
#include <string>
#include <tuple>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;

constexpr char kCompletions[] = "/v1/completions";
constexpr char kChat[] = "/v1/chat/completions";

std::string IdList(int count, int id = 7) {
  return absl::StrCat("[", absl::StrJoin(std::vector<int>(count, id), ","), "]");
}

std::string HeadOfBody(size_t length) {
  return absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
                      "Content-Length: ", length, "\r\n\r\n");
}

class RestBytesTest : public RestTest {
 protected:
  static constexpr int kContext = 4096;

  void StartWith(int64_t max_answer_bytes, int64_t max_buffered_bytes = 64 << 20,
                 RestServerOptions rest = {}) {
    ServiceOptions options;
    options.limits.max_answer_bytes = max_answer_bytes;
    options.limits.max_buffered_bytes = max_buffered_bytes;
    Start(std::move(options), rest);
    Load(1024, kContext);
  }
  // The size that a refusal says the answer may have.
  int64_t BoundOf(const std::string& path, const std::string& body) {
    StartWith(1024);
    const std::string message = Post(path, body).Error("message");
    std::smatch match;
    int64_t bound = 0;
    EXPECT_TRUE(std::regex_search(message, match, std::regex("may come to (\\d+) bytes, at most 1024 ")))
        << message;
    EXPECT_TRUE(absl::SimpleAtoi(match[1].str(), &bound));
    return bound;
  }
  void WaitForNothingHeld() {
    while (service_->byte_budget().used() > 0) absl::SleepFor(absl::Milliseconds(1));
  }
};

TEST_F(RestBytesTest, AnswersAreBoundedBeforeTheyAreBegun) {
  const std::string message = R"("messages": [{"role": "user", "content": "x"}])";
  const std::vector<std::tuple<const char*, std::string, const char*>> cases = {
      {kCompletions, R"("prompt": [7], "max_tokens": 500)", "max_tokens"},
      {kCompletions, R"("prompt": [7], "max_tokens": 50, "n": 7, "return_token_ids": true)", "max_tokens"},
      {kCompletions, R"("prompt": "\u0001é\"", "echo": true, "logprobs": 20, "max_tokens": 40)", "logprobs"},
      {kCompletions, absl::StrCat(R"("echo": true, "n": 3, "prompt": )", IdList(999), R"(, "max_tokens": 0)"),
       "max_tokens"},
      {kChat, absl::StrCat(message, R"(, "max_tokens": 30, "logprobs": true, "top_logprobs": 20)"),
       "top_logprobs"},
      {kCompletions,
       absl::StrCat(R"("prompt_logprobs": 20, "n": 2, "max_tokens": 0, "prompt": )", IdList(99)),
       "prompt_logprobs"},
      {kChat, absl::StrCat(message, R"(, "prompt_logprobs": 20, "n": 4, "max_tokens": 1)"),
       "prompt_logprobs"},
      {"/v2/models/scripted/generate", R"("text_input": "x", "parameters": {"max_tokens": 300})",
       "max_tokens"},
  };
  for (const auto& [path, members, param] : cases) {
    const std::string body = absl::StrCat("{", members, "}");
    const int64_t bound = BoundOf(path, body);
    const std::string code = path[2] == '2' ? "kserve" : "answer_too_large";
    EXPECT_EQ(CodeOf(path, body, 400, param), code);
    StartWith(bound - 1);
    EXPECT_EQ(CodeOf(path, body, 400, param), code) << members;
    EXPECT_EQ(engine_->num_submitted(), 0);
    StartWith(bound);
    engine_->SetScript(std::vector<int32_t>(600, 1000));  // goes on to max_tokens
    const HttpReply reply = Post(path, body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    EXPECT_LE(reply.body.size(), bound + 512) << members;  // and the head of the answer
    EXPECT_GE(reply.body.size(), bound / 20) << "a bound that says nothing: " << members;
  }
}

TEST_F(RestBytesTest, AChatThatNamesNoLengthGetsWhatFits) {
  const std::string body =
      R"({"messages": [{"role": "user", "content": "x"}], "logprobs": true, "top_logprobs": 9)";
  StartWith(100 << 10);
  EXPECT_EQ(Post(kChat, absl::StrCat(body, "}")).status, 200);
  const int fits = engine_->last().sampling.max_tokens;
  EXPECT_GT(fits, 10);
  EXPECT_LT(fits, 1000);
  EXPECT_EQ(Post(kChat, absl::StrCat(body, R"(, "max_tokens": )", fits, "}")).status, 200);
  EXPECT_EQ(Post(kChat, absl::StrCat(body, R"(, "max_tokens": )", fits + 1, "}")).status, 400);
}

TEST_F(RestBytesTest, AnEchoOfMegabytesForAllChoicesIsRefused) {
  StartWith(Limits().max_answer_bytes, Limits().max_buffered_bytes);
  std::vector<std::string> prompts(24, IdList(4000));
  const std::string body =
      absl::StrCat(R"({"n": 16, "echo": true, "logprobs": 20, "max_tokens": 1, "prompt": [)",
                   absl::StrJoin(prompts, ","), "]}");
  EXPECT_EQ(CodeOf(kCompletions, body, 400, "logprobs"), "answer_too_large");
}

TEST_F(RestBytesTest, TokenizeAndDetokenizeAreBoundedToo) {
  StartWith(11'000);  // an id and its comma may have 11 characters
  const int x = Ids("x")[0];
  const auto detokenize = [x](int count) { return absl::StrCat(R"({"tokens": )", IdList(count, x), "}"); };
  EXPECT_EQ(Post("/detokenize", detokenize(11'000)).status, 200);
  EXPECT_EQ(CodeOf("/detokenize", detokenize(11'001), 400, "tokens"), "answer_too_large");
  const auto tokenize = [](int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += '\x01';  // each is a token of its own
    return absl::StrCat(R"({"add_special_tokens": false, "prompt": ")",
                        absl::StrReplaceAll(text, {{"\x01", "\\u0001"}}), "\"}");
  };
  ASSERT_EQ(Post("/tokenize", tokenize(1000)).Json().at("count"), 1000);
  EXPECT_EQ(CodeOf("/tokenize", tokenize(1001), 400, "prompt"), "answer_too_large");
}

TEST_F(RestBytesTest, AnEchoIsHeldOnceForAllChoices) {
  // The answer is larger than the budget, but 16 times the same.
  StartWith(64 << 20, 1 << 20);
  const std::string body = absl::StrCat(
      R"({"n": 16, "echo": true, "logprobs": 5, "max_tokens": 2, "prompt": )", IdList(4000), "}");
  const HttpReply reply = Complete(body);
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_GT(reply.body.size(), 3u << 20);
  const boost::json::value json = reply.Json();
  for (const boost::json::value& choice : json.at("choices").as_array()) {
    EXPECT_EQ(choice.at("logprobs").at("tokens").as_array().size(), 4002u);
    EXPECT_EQ(choice.at("logprobs").at("top_logprobs").as_array().size(), 4002u);
    EXPECT_TRUE(choice.at("logprobs").at("top_logprobs").at(0).is_null());
  }
  // The same as choices of their own.
  const HttpReply one = Complete(absl::StrReplaceAll(body, {{"16", "1"}}));
  EXPECT_EQ(one.Json().at("choices").at(0).at("logprobs"), json.at("choices").at(0).at("logprobs"));
  WaitForNothingHeld();
}

TEST_F(RestBytesTest, AnAnswerThatFindsNoRoomEndsWith503) {
  StartWith(64 << 20, 256 << 10);
  const HttpReply reply = Complete(R"({"prompt": [7], "logprobs": 20, "max_tokens": 4000})");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Error("code"), "overloaded");
  EXPECT_EQ(reply.Header("Retry-After"), "1");
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  EXPECT_EQ(Outcomes(Outcome::kRejected), 1);
  WaitForNothingHeld();
  EXPECT_EQ(Complete(R"({"prompt": [7]})").status, 200);
}

TEST_F(RestBytesTest, BodiesThatAreKeptOpenHaveHalfOfTheBudget) {
  constexpr size_t kBody = 300 << 10, kBudget = 2 << 20;
  RestServerOptions rest;
  rest.body_timeout = rest.evict_body_after = absl::Hours(1);
  StartWith(1 << 20, kBudget, rest);
  std::vector<std::unique_ptr<HttpClient>> open;
  const std::string all_but_one(kBody - 1, ' ');
  int refused = 0;
  for (int i = 0; i < 12; ++i) {
    auto& client = open.emplace_back(std::make_unique<HttpClient>(server_->port()));
    client->Send(HeadOfBody(kBody));
    client->Send(all_but_one);
    // Either all is there of those that are open, or there was no room for one: for its last bytes maybe, so
    // that it is not always the latest.
    while (service_->byte_budget().used() < std::ssize(open) * int64_t{kBody - (16 << 10)}) {
      EXPECT_LE(service_->byte_budget().used(), static_cast<int64_t>(kBudget / 2));
      const auto answered = absl::c_find_if(open, [](const auto& c) { return c->HasAnswer(); });
      if (answered == open.end()) {
        absl::SleepFor(absl::Milliseconds(1));
        continue;
      }
      ++refused;
      const HttpReply reply = (*answered)->Read();
      EXPECT_EQ(reply.status, 503);
      EXPECT_EQ(reply.Error("code"), "overloaded");
      EXPECT_EQ(reply.Header("Retry-After"), "1");
      EXPECT_EQ(reply.Header("Connection"), "close");
      open.erase(answered);
    }
    EXPECT_LE(service_->byte_budget().used(), static_cast<int64_t>(kBudget / 2));
  }
  EXPECT_GE(service_->byte_budget().num_refused(), refused);
  EXPECT_GE(open.size(), 2u);  // what is on its way to be parsed takes room too
  EXPECT_LE(open.size(), 3u);
  EXPECT_GE(Outcomes(Outcome::kRejected), refused);
  EXPECT_EQ(Complete(R"({"prompt": [7]})").status, 200) << "short requests always find room";
  open.clear();
  WaitForNothingHeld();
}

TEST_F(RestBytesTest, BodiesThatStandStillMakeRoomForOthers) {
  constexpr size_t kBody = 300 << 10;
  RestServerOptions rest;
  rest.body_timeout = absl::Hours(1);
  rest.evict_body_after = absl::ZeroDuration();
  StartWith(1 << 20, 2 << 20, rest);
  std::vector<std::unique_ptr<HttpClient>> open;
  for (int i = 0; i < 3; ++i) {
    open.push_back(std::make_unique<HttpClient>(server_->port()));
    open.back()->Send(HeadOfBody(kBody) + std::string(kBody - 1, ' '));
  }
  const std::string body = absl::StrCat(R"({"max_tokens": 1, "truncate_prompt_tokens": 1, "prompt": )",
                                        IdList(kBody / 2 - 100), "}");
  while (service_->byte_budget().num_evicted() == 0) Complete(body);  // whoever does not send on has to go
  while (Complete(body).status != 200) absl::SleepFor(absl::Milliseconds(1));
  open.clear();
  WaitForNothingHeld();
}

TEST_F(RestBytesTest, ABodyOfUnknownLengthIsChargedToo) {
  StartWith(1 << 20, 1 << 20);
  HttpClient client(server_->port());
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: "
      "chunked\r\n\r\n");
  const std::string chunk(64 << 10, ' ');
  for (int i = 0; i < 5; ++i) client.Send(absl::StrCat("10000\r\n", chunk, "\r\n"));
  EXPECT_EQ(client.Read().status, 503);
}

TEST_F(RestBytesTest, ABodyMayTakeLongWhileItComes) {
  RestServerOptions rest;
  rest.body_timeout = absl::Milliseconds(50);
  rest.min_body_rate = 1;  // what it has sent so far is good for as many seconds
  const std::string body = R"({"prompt": [7], "max_tokens": 1})";
  StartWith(1 << 20, 16 << 20, rest);
  HttpClient steady(server_->port());
  steady.Send(HeadOfBody(body.size()) + body.substr(0, 20));
  absl::SleepFor(absl::Milliseconds(200));
  steady.Send(body.substr(20));
  EXPECT_EQ(steady.Read().status, 200);
  rest.min_body_rate = 1e9;
  StartWith(1 << 20, 16 << 20, rest);
  HttpClient slow(server_->port());
  slow.Send(HeadOfBody(body.size()) + body.substr(0, 20));
  EXPECT_EQ(slow.Read().status, 408);
}

TEST_F(RestBytesTest, WhoDoesNotReadAnAnswerIsLeft) {
  RestServerOptions rest;
  rest.write_timeout = absl::Seconds(1);  // who reads, on a busy machine too, takes the next piece within it
  StartWith(64 << 20, 64 << 20, rest);
  const std::string body = absl::StrCat(
      R"({"n": 16, "echo": true, "logprobs": 20, "max_tokens": 1, "prompt": )", IdList(4000), "}");
  HttpClient reader(server_->port()), other(server_->port());
  other.Send(RequestBytes("POST", kCompletions, body));
  while (service_->byte_budget().used() == 0) absl::SleepFor(absl::Milliseconds(1));
  WaitForNothingHeld();
  // However long the answer: who reads has all of it.
  reader.Send(RequestBytes("POST", kCompletions, body));
  const HttpReply reply = reader.Read();
  EXPECT_EQ(reply.status, 200);
  EXPECT_GT(reply.body.size(), 8u << 20);
  EXPECT_EQ(reply.Json().at("choices").as_array().size(), 16u);
}

TEST_F(RestBytesTest, EventsThatWaitForAReaderAreCharged) {
  ServiceOptions options;
  options.limits.max_buffered_bytes = 64 << 10;
  options.limits.max_answer_bytes = 1 << 30;
  options.limits.max_queued_events = 1 << 20;  // so that bytes are what ends it
  Start(std::move(options));
  Load(1024, 1 << 20);
  const HttpReply stream =
      Complete(R"({"prompt": [7], "max_tokens": 50000, "stream": true, "logprobs": 20})");
  const std::vector<std::string> events = stream.Events();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(boost::json::parse(events[events.size() - 2]).at("error").at("code"), "slow_reader");
  EXPECT_EQ(Outcomes(Outcome::kSlowReader), 1);
  WaitForNothingHeld();
}

TEST_F(RestBytesTest, LimitsAndMetricsTell) {
  StartWith(2000, 16 << 20);
  const boost::json::value limits = Call("GET", "/v1/limits").Json();
  EXPECT_EQ(limits.at("max_answer_bytes"), 2000);
  EXPECT_EQ(limits.at("max_buffered_bytes"), 16 << 20);
  const std::string metrics = Call("GET", "/metrics").body;
  for (const char* name : {"sessa_buffered_bytes", "sessa_max_buffered_bytes", "sessa_buffered_refused_total",
                           "sessa_buffered_evicted_total"}) {
    EXPECT_THAT(metrics, HasSubstr(absl::StrCat("# TYPE ", name)));
  }
}

}  // namespace
}  // namespace sessa
