// What the load tester reads and writes: event streams in any pieces, chunks of the OpenAI API, classes of
// errors, metrics, addresses.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loadtest/http.h"
#include "loadtest/openai_json.h"
#include "loadtest/outcomes.h"
#include "loadtest/prometheus_text.h"
#include "loadtest/sse.h"

namespace sessa::loadtest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// ---- event streams ----

// Everything that the format allows, with each kind of line end.
constexpr char kStream[] =
    "\xEF\xBB\xBF"
    "data: one\n\n: a comment\r\ndata:two\r\ndata: and a half\r\n\r\nevent: x\rid: 4\rdata: three\r\r"
    "database: no\n\ndata\n\ndata:  spaces \n\n\n\ndata: [DONE]\n\ndata: cut off";

std::vector<std::string> Parse(const std::vector<std::string>& pieces) {
  std::vector<std::string> events;
  SseParser parser([&events](absl::string_view data) {
    events.emplace_back(data);
    return true;
  });
  for (const std::string& piece : pieces) EXPECT_TRUE(parser.Feed(piece));
  return events;
}

TEST(SseTest, SplitAnywhereItIsTheSame) {
  const std::string stream = kStream;
  const std::vector<std::string> whole = Parse({stream});
  EXPECT_THAT(whole, ElementsAre("one", "two\nand a half", "three", "", " spaces ", "[DONE]"));
  for (size_t i = 0; i <= stream.size(); ++i) {
    for (size_t j = i; j <= stream.size(); ++j)
      ASSERT_EQ(Parse({stream.substr(0, i), stream.substr(i, j - i), stream.substr(j)}), whole)
          << i << " " << j;
  }
  std::vector<std::string> bytes;
  for (const char byte : stream) bytes.emplace_back(1, byte);
  EXPECT_EQ(Parse(bytes), whole);
}

TEST(SseTest, StopsWhenNoMoreIsWanted) {
  int events = 0;
  SseParser parser([&events](absl::string_view) { return ++events < 2; });
  EXPECT_FALSE(parser.Feed("data: 1\n\ndata: 2\n\ndata: 3\n\n"));
  EXPECT_EQ(events, 2);
}

// ---- chunks ----

TEST(ChunkTest, TokensByIdsElseOneAnEvent) {
  StreamChunk chunk =
      ParseChunk(R"({"choices":[{"text":"","token_ids":[4,5,6],"finish_reason":null}],"usage":null})", true);
  EXPECT_EQ(chunk.kind, StreamChunk::Kind::kChunk);
  EXPECT_EQ(chunk.num_tokens, 3);
  EXPECT_TRUE(chunk.counted);
  EXPECT_THAT(chunk.token_ids, ElementsAre(4, 5, 6));
  EXPECT_EQ(chunk.finish_reason, "");
  chunk = ParseChunk(R"({"choices":[{"text":" many words at once"}]})", true);
  EXPECT_EQ(chunk.num_tokens, 1);
  EXPECT_FALSE(chunk.counted);
  EXPECT_EQ(chunk.text, " many words at once");
  // Chat: a role alone is no token; reasoning is.
  EXPECT_EQ(ParseChunk(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})", false).num_tokens, 0);
  EXPECT_EQ(ParseChunk(R"({"choices":[{"delta":{"content":"a"}}]})", false).num_tokens, 1);
  EXPECT_EQ(ParseChunk(R"({"choices":[{"delta":{"reasoning_content":"a"}}]})", false).num_tokens, 1);
  EXPECT_EQ(ParseChunk(R"({"choices":[{"text":"","finish_reason":"stop"}]})", false).finish_reason, "stop");
}

TEST(ChunkTest, Usage) {
  const StreamChunk chunk = ParseChunk(
      R"({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}})",
      false);
  EXPECT_EQ(chunk.prompt_tokens, 9);
  EXPECT_EQ(chunk.completion_tokens, 4);
  EXPECT_EQ(chunk.cached_tokens, 8);
}

TEST(ChunkTest, ErrorsAndNonsense) {
  StreamChunk chunk = ParseChunk(R"({"error":{"message":"gone","type":"server_error","code":503}})", false);
  EXPECT_EQ(chunk.kind, StreamChunk::Kind::kError);
  EXPECT_EQ(chunk.error, "gone");
  EXPECT_EQ(chunk.error_code, "503");
  chunk = ParseChunk(R"({"error":"gone"})", false);
  EXPECT_EQ(chunk.kind, StreamChunk::Kind::kError);
  EXPECT_EQ(chunk.error, "gone");
  for (const char* data : {"", "{", "[]", "1", "<html>"})
    EXPECT_EQ(ParseChunk(data, false).kind, StreamChunk::Kind::kUnreadable) << data;
  // What has the wrong shape is read as far as it goes.
  for (const char* data :
       {"{}", R"({"choices":3})", R"({"choices":[3]})", R"({"choices":[{"token_ids":3}],"usage":[]})"}) {
    EXPECT_EQ(ParseChunk(data, true).kind, StreamChunk::Kind::kChunk) << data;
    EXPECT_EQ(ParseChunk(data, true).num_tokens, 0) << data;
  }
}

TEST(RequestBodyTest, Forms) {
  Call call;
  call.prompt = {{Segment::Role::kSystem, {1, 2}, ""}, {Segment::Role::kUser, {64, 1}, ""}};
  call.record.output_tokens = 7;
  RequestOptions options;
  options.model = "a \"b\"";
  EXPECT_EQ(
      RequestBody(options, call),
      R"({"model":"a \"b\"","prompt":[1,2,64,1],"max_tokens":7,"stream":true,"stream_options":{"include_usage":true},)"
      R"("temperature":0,"ignore_eos":true,"return_token_ids":true})");
  options = {};
  options.ignore_eos = options.return_token_ids = false;
  options.prompt_as_text = true;
  options.extra_body = R"("top_p":0.5)";
  EXPECT_EQ(
      RequestBody(options, call),
      R"({"prompt":" of and the of","max_tokens":7,"stream":true,"stream_options":{"include_usage":true},)"
      R"("temperature":0,"top_p":0.5})");
  options.chat = true;
  EXPECT_THAT(
      RequestBody(options, call),
      HasSubstr(
          R"({"messages":[{"role":"system","content":" of and"},{"role":"user","content":" the of"}],"max)"));
}

TEST(ErrorMessageTest, WhateverTheBodyIs) {
  EXPECT_EQ(ErrorMessage(R"({"error":{"message":"too long"}})"), "too long");
  EXPECT_EQ(ErrorMessage(R"({"error":"too long"})"), "too long");
  EXPECT_EQ(ErrorMessage(R"({"detail":"Not Found"})"), "Not Found");
  EXPECT_EQ(ErrorMessage("<html>"), "<html>");
}

// ---- outcomes ----

TEST(OutcomesTest, Http) {
  EXPECT_EQ(OutcomeOfHttpStatus(429), Outcome::kRateLimited);
  EXPECT_EQ(OutcomeOfHttpStatus(503), Outcome::kUnavailable);
  EXPECT_EQ(OutcomeOfHttpStatus(504), Outcome::kDeadline);
  EXPECT_EQ(OutcomeOfHttpStatus(400), Outcome::kClientError);
  EXPECT_EQ(OutcomeOfHttpStatus(499), Outcome::kClientError);
  EXPECT_EQ(OutcomeOfHttpStatus(500), Outcome::kServerError);
  EXPECT_EQ(OutcomeOfHttpStatus(204), Outcome::kProtocol);
  EXPECT_EQ(OutcomeOfHttpStatus(302), Outcome::kProtocol);
}

TEST(OutcomesTest, Grpc) {
  EXPECT_EQ(OutcomeOfGrpcStatus(8, false), Outcome::kRateLimited);
  EXPECT_EQ(OutcomeOfGrpcStatus(14, false), Outcome::kUnavailable);
  EXPECT_EQ(OutcomeOfGrpcStatus(14, true), Outcome::kBroken);
  EXPECT_EQ(OutcomeOfGrpcStatus(4, true), Outcome::kDeadline);
  EXPECT_EQ(OutcomeOfGrpcStatus(3, false), Outcome::kClientError);
  EXPECT_EQ(OutcomeOfGrpcStatus(13, false), Outcome::kServerError);
}

TEST(OutcomesTest, ErrorEvents) {
  EXPECT_EQ(OutcomeOfStreamError("429", ""), Outcome::kRateLimited);
  EXPECT_EQ(OutcomeOfStreamError("deadline_exceeded", "timeout_error"), Outcome::kDeadline);
  EXPECT_EQ(OutcomeOfStreamError("draining", "unavailable_error"), Outcome::kUnavailable);
  EXPECT_EQ(OutcomeOfStreamError("", ""), Outcome::kServerError);
}

TEST(OutcomesTest, GuessedTokensAreSpreadToTheirSum) {
  for (const int total : {1, 4, 5, 9, 100}) {
    std::vector<TokenEvent> events(5, {0, 1});
    SpreadTokens(total, &events);
    int sum = 0, least = total, most = 0;
    for (const TokenEvent& event : events) {
      sum += event.num_tokens;
      least = std::min(least, event.num_tokens);
      most = std::max(most, event.num_tokens);
    }
    EXPECT_EQ(sum, total);
    EXPECT_LE(most - least, 1);
  }
}

// ---- metrics and addresses ----

TEST(PrometheusTextTest, Series) {
  const auto values = ParsePrometheusText(
      "# HELP a b\n# TYPE a counter\na 1\nb{x=\"y\"} 2.5 1700000000\r\n\nc{l=\"} 1 \\\" {\"}\t+Inf\nd:e{} "
      "NaN\n");
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ(values->size(), 4);
  EXPECT_EQ(values->at("a"), 1);
  EXPECT_EQ(values->at("b{x=\"y\"}"), 2.5);
  EXPECT_EQ(values->at("c{l=\"} 1 \\\" {\"}"), std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(values->at("d:e{}")));
  EXPECT_TRUE(ParsePrometheusText("")->empty());
  for (const char* line : {"a", "a x", "{a=\"b\"} 1", "a{b=\"c\" 1", "a 1 2 3", "<html>"}) {
    const auto bad = ParsePrometheusText(std::string("ok 1\n") + line + "\n");
    EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_THAT(std::string(bad.status().message()), HasSubstr("line 2"));
  }
}

TEST(HttpUrlTest, Forms) {
  auto url = ParseHttpUrl("http://host:8000/a/b/");
  ASSERT_TRUE(url.ok()) << url.status();
  EXPECT_THAT((std::vector<std::string>{url->host, url->port, url->path, url->authority}),
              ElementsAre("host", "8000", "/a/b", "host:8000"));
  url = ParseHttpUrl("[::1]:9");
  ASSERT_TRUE(url.ok()) << url.status();
  EXPECT_THAT((std::vector<std::string>{url->host, url->port, url->authority}),
              ElementsAre("::1", "9", "[::1]:9"));
  url = ParseHttpUrl("host");
  ASSERT_TRUE(url.ok()) << url.status();
  EXPECT_EQ(url->port, "80");
  for (const char* bad : {"", "http://", "https://host", "ftp://host", "host:0", "host:65536", "host:x",
                          "ho st", "[::1", "user@host", "host/a?b"}) {
    EXPECT_EQ(ParseHttpUrl(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace sessa::loadtest
