// REST: each limit of /v1/limits at its edge - what is just allowed is served, one more is refused with the
// field's name.
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

constexpr char kCompletions[] = "/v1/completions";

std::string Repeat(const std::string& item, int count) {
  return absl::StrJoin(std::vector<std::string>(count, item), ",");
}

std::string LogitBias(int count) {
  std::vector<std::string> entries;
  for (int id = 0; id < count; ++id) entries.push_back(absl::StrCat("\"", id, "\": 1"));
  return absl::StrJoin(entries, ",");
}

class RestLimitsTest : public RestTest {
 protected:
  void SetUp() override {
    ServiceOptions options;
    options.limits.max_body_bytes = 1 << 20;
    options.limits.max_prompts = 3;
    options.limits.max_messages = 3;
    options.limits.max_n = 4;
    options.limits.max_total_tokens = 100;
    options.limits.max_stop_bytes = 8;
    options.limits.max_stop_token_ids = 3;
    options.limits.max_logit_bias = 3;
    options.limits.max_allowed_token_ids = 3;
    options.limits.max_logprobs = 5;
    options.limits.max_json_depth = 4;
    options.limits.max_timeout = absl::Seconds(100);
    options.limits.max_header_bytes = 4096;
    Start(std::move(options));
    Load();
  }
  // `allowed` is served, `beyond` refused for `param`; both are the members after a prompt.
  void Edge(const std::string& param, const std::string& allowed, const std::string& beyond) {
    const HttpReply reply = Complete(absl::StrCat(R"({"prompt": [1], )", allowed, "}"));
    EXPECT_EQ(reply.status, 200) << allowed << "\n" << reply.body;
    CodeOf(kCompletions, absl::StrCat(R"({"prompt": [1], )", beyond, "}"), 400, param);
  }
};

TEST_F(RestLimitsTest, Parameters) {
  Edge("n", R"("n": 4)", R"("n": 5)");
  Edge("stop", absl::StrCat(R"("stop": [)", Repeat("\"a\"", 4), "]"),
       absl::StrCat(R"("stop": [)", Repeat("\"a\"", 5), "]"));
  Edge("stop", R"("stop": "12345678")", R"("stop": "123456789")");
  Edge("stop_token_ids", R"("stop_token_ids": [1, 2, 3])", R"("stop_token_ids": [1, 2, 3, 4])");
  Edge("allowed_token_ids", R"("allowed_token_ids": [1, 2, 3])", R"("allowed_token_ids": [1, 2, 3, 4])");
  Edge("logit_bias", absl::StrCat(R"("logit_bias": {)", LogitBias(3), "}"),
       absl::StrCat(R"("logit_bias": {)", LogitBias(4), "}"));
  Edge("logprobs", R"("logprobs": 5)", R"("logprobs": 6)");
  Edge("prompt_logprobs", R"("prompt_logprobs": 5)", R"("prompt_logprobs": 6)");
  Edge("timeout", R"("timeout": 100)", R"("timeout": 100.5)");
  Edge("priority", R"("priority": -1000)", R"("priority": -1001)");
  Edge("num_speculative_tokens", R"("num_speculative_tokens": 16)", R"("num_speculative_tokens": 17)");
  Edge("num_speculative_tokens", R"("num_speculative_tokens": 0)", R"("num_speculative_tokens": -1)");
  Edge("temperature", R"("temperature": 2)", R"("temperature": 2.0001)");
  Edge("top_k", R"("top_k": -1)", R"("top_k": -2)");
  Edge("top_k", R"("top_k": 2147483647)", R"("top_k": 2147483648)");
  Edge("presence_penalty", R"("presence_penalty": -2)", R"("presence_penalty": -2.0001)");
  Edge("logit_bias", R"("logit_bias": {"1023": -100})", R"("logit_bias": {"1024": -100})");
  Edge("truncate_prompt_tokens", R"("truncate_prompt_tokens": 64)", R"("truncate_prompt_tokens": 65)");
}

TEST_F(RestLimitsTest, Prompts) {
  EXPECT_EQ(Complete(R"({"prompt": [[1], [2], [3]]})").status, 200);
  CodeOf(kCompletions, R"({"prompt": [[1], [2], [3], [4]]})", 400, "prompt");
  EXPECT_EQ(Complete(R"({"prompt": [1023]})").status, 200);
  CodeOf(kCompletions, R"({"prompt": [1024]})", 400, "prompt");
  const std::string message = R"({"role": "user", "content": "x"})";
  EXPECT_EQ(Post("/v1/chat/completions", absl::StrCat(R"({"messages": [)", Repeat(message, 3), "]}")).status,
            200);
  CodeOf("/v1/chat/completions", absl::StrCat(R"({"messages": [)", Repeat(message, 4), "]}"), 400,
         "messages");
  EXPECT_EQ(Post("/tokenize", absl::StrCat(R"({"messages": [)", Repeat(message, 3), "]}")).status, 200);
  CodeOf("/tokenize", absl::StrCat(R"({"messages": [)", Repeat(message, 4), "]}"), 400, "messages");
}

TEST_F(RestLimitsTest, TokensInAll) {
  // prompts * n * max_tokens: 2 * 2 * 25 = 100.
  EXPECT_EQ(Complete(R"({"prompt": [[1], [2]], "n": 2, "max_tokens": 25})").status, 200);
  CodeOf(kCompletions, R"({"prompt": [[1], [2]], "n": 2, "max_tokens": 26})", 400, "max_tokens");
  // A chat that names none takes what fits: 64 less its prompt, twice.
  EXPECT_EQ(Post("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "x"}]})").status, 200);
  CodeOf("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "x"}], "n": 4})", 400,
         "max_tokens");
}

TEST_F(RestLimitsTest, ContextLength) {
  EXPECT_EQ(Complete(absl::StrCat(R"({"max_tokens": 1, "prompt": [)", Repeat("1", 63), "]}")).status, 200);
  EXPECT_EQ(CodeOf(kCompletions, absl::StrCat(R"({"max_tokens": 1, "prompt": [)", Repeat("1", 64), "]}"), 400,
                   "prompt"),
            "context_length_exceeded");
  EXPECT_EQ(Complete(R"({"max_tokens": 63, "prompt": [1]})").status, 200);
  EXPECT_EQ(CodeOf(kCompletions, R"({"max_tokens": 63, "prompt": [1, 2]})", 400, "prompt"),
            "context_length_exceeded");
  // A longer prompt is served when it may be cut.
  EXPECT_EQ(Complete(absl::StrCat(R"({"max_tokens": 1, "truncate_prompt_tokens": 63, "prompt": [)",
                                  Repeat("1", 500), "]}"))
                .status,
            200);
  EXPECT_EQ(engine_->last().prompt.size(), 63u);
}

TEST_F(RestLimitsTest, JsonDepth) {
  EXPECT_EQ(Complete(R"({"prompt": [1], "a": [[[]]]})").status, 200);
  EXPECT_EQ(Complete(R"({"prompt": [1], "a": [[[[]]]]})").status, 400);
}

TEST_F(RestLimitsTest, BodyIsRefusedBeforeItIsRead) {
  const int64_t limit = service_->limits().max_body_bytes;
  std::string body = R"({"prompt": [1], "user": ""})";
  body.insert(body.size() - 2, limit - body.size(), 'x');
  EXPECT_EQ(Complete(body).status, 200);
  // Nothing of this body is ever sent: the length alone is judged.
  HttpClient client(server_->port());
  client.Send(absl::StrCat(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ",
      limit + 1, "\r\n\r\n"));
  const HttpReply refused = client.Read();
  EXPECT_EQ(refused.status, 413);
  EXPECT_EQ(refused.Header("Connection"), "close");
  EXPECT_EQ(refused.Error("code"), "request_too_large");
  EXPECT_EQ(Outcomes(Outcome::kInvalid), 1);
}

TEST_F(RestLimitsTest, ChunkedBodyIsCounted) {
  HttpClient client(server_->port());
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: "
      "chunked\r\n\r\n");
  const std::string chunk(64 << 10, ' ');
  for (int i = 0; i <= 16; ++i) client.Send(absl::StrCat("10000\r\n", chunk, "\r\n"));
  EXPECT_EQ(client.Read().status, 413);
  EXPECT_EQ(Outcomes(Outcome::kInvalid), 1);
  EXPECT_NE(Call("GET", "/metrics").body.find("code=\"413\",protocol=\"rest\"} 1\n"), std::string::npos);
}

TEST_F(RestLimitsTest, Header) {
  EXPECT_EQ(Call("GET", "/livez", "", {{"X-Pad", std::string(3900, 'x')}}).status, 200);
  EXPECT_EQ(Call("GET", "/livez", "", {{"X-Pad", std::string(4100, 'x')}}).status, 431);
}

TEST_F(RestLimitsTest, SlowReaderIsCancelled) {
  ServiceOptions options;
  options.limits.max_queued_events = 100;
  options.limits.max_answer_bytes = 1 << 30;
  Start(std::move(options));
  Load(1024, 1 << 20);
  // The engine's script comes at once, so that it is ahead of any reader.
  const HttpReply stream =
      Complete(R"({"prompt": [1], "max_tokens": 100000, "stream": true, "logprobs": 20})");
  const std::vector<std::string> events = stream.Events();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(boost::json::parse(events[events.size() - 2]).at("error").at("code"), "slow_reader");
  EXPECT_EQ(Outcomes(Outcome::kSlowReader), 1);
  // A whole answer has no reader that could be slow.
  EXPECT_EQ(Complete(R"({"prompt": [1], "max_tokens": 5000})").status, 200);
  // What fits the bound is never cut, and many choices have room for each.
  EXPECT_EQ(Complete(R"({"prompt": [1], "max_tokens": 60, "n": 16, "stream": true})").Events().back(),
            "[DONE]");
  EXPECT_EQ(Outcomes(Outcome::kLength), 2);
}

// What cannot fit by its bytes is not tokenised: 93 ids of at most 11 bytes each are the most of 1024 bytes.
TEST_F(RestLimitsTest, TokenizeByBytes) {
  ServiceOptions options;
  options.limits.max_answer_bytes = 1024;
  Start(std::move(options));
  Load();
  const auto body = [](const std::string& text) {
    return absl::StrCat(R"({"add_special_tokens": false, "prompt": ")", text, "\"}");
  };
  std::string fits;
  for (int i = 0; i < 93; ++i) fits += "<|endoftext|>";  // the longest token
  EXPECT_EQ(Post("/tokenize", body(fits)).status, 200);
  const HttpReply refused = Post("/tokenize", body(fits + "x"));
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.Error("code"), "answer_too_large");
  EXPECT_NE(refused.Error("message").find("at least 94 tokens"), std::string::npos) << refused.body;
  const HttpReply tokenised = Post("/tokenize", body(std::string(94, 'x')));  // short enough to be counted
  EXPECT_EQ(tokenised.Error("code"), "answer_too_large");
  EXPECT_EQ(tokenised.Error("message").find("at least"), std::string::npos);
}

}  // namespace
}  // namespace sessa
