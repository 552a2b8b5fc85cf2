// REST: every error status with its code, field and headers, and the outcome that each is counted as.
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kCompletions[] = "/v1/completions";
constexpr char kChat[] = "/v1/chat/completions";

TEST_F(RestTest, BadValuesNameTheirField) {
  Load();
  const struct {
    const char* param;
    const char* body;
  } cases[] = {
      {"prompt", R"({})"},
      {"prompt", R"({"prompt": null})"},
      {"prompt", R"({"prompt": []})"},
      {"prompt", R"({"prompt": [[]]})"},
      {"prompt", R"({"prompt": 7})"},
      {"prompt", R"({"prompt": [1024]})"},
      {"prompt", R"({"prompt": [-1]})"},
      {"prompt", R"({"prompt": [[1], [99999999999]]})"},
      {"prompt[1]", R"({"prompt": [1, 2.5]})"},
      {"prompt[1]", R"({"prompt": ["a", 1]})"},
      {"prompt[0]", R"({"prompt": [{"a": 1}]})"},
      {"prompt", R"({"prompt": "", "add_special_tokens": false})"},
      {"model", R"({"prompt": "x", "model": 3})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": 0})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": -5})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": 1.5})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": "9"})"},
      {"max_tokens", R"({"prompt": "x", "max_tokens": 18446744073709551615})"},
      {"min_tokens", R"({"prompt": "x", "max_tokens": 3, "min_tokens": 4})"},
      {"min_tokens", R"({"prompt": "x", "min_tokens": -1})"},
      {"min_tokens", R"({"prompt": "x", "min_tokens": 2, "allowed_token_ids": [3], "stop_token_ids": [3]})"},
      {"n", R"({"prompt": "x", "n": 0})"},
      {"best_of", R"({"prompt": "x", "n": 1, "best_of": 2})"},
      {"suffix", R"({"prompt": "x", "suffix": "y"})"},
      {"temperature", R"({"prompt": "x", "temperature": -0.1})"},
      {"temperature", R"({"prompt": "x", "temperature": 2.1})"},
      {"temperature", R"({"prompt": "x", "temperature": 1e999})"},
      {"temperature", R"({"prompt": "x", "temperature": NaN})"},
      {"temperature", R"({"prompt": "x", "temperature": Infinity})"},
      {"temperature", R"({"prompt": "x", "temperature": -Infinity})"},
      {"temperature", R"({"prompt": "x", "temperature": true})"},
      {"top_p", R"({"prompt": "x", "top_p": 0})"},
      {"top_p", R"({"prompt": "x", "top_p": 1.01})"},
      {"top_p", R"({"prompt": "x", "top_p": 1e-300})"},
      {"top_k", R"({"prompt": "x", "top_k": -2})"},
      {"min_p", R"({"prompt": "x", "min_p": -0.1})"},
      {"min_p", R"({"prompt": "x", "min_p": 1.1})"},
      {"presence_penalty", R"({"prompt": "x", "presence_penalty": 2.01})"},
      {"frequency_penalty", R"({"prompt": "x", "frequency_penalty": -2.01})"},
      {"repetition_penalty", R"({"prompt": "x", "repetition_penalty": 0})"},
      {"repetition_penalty", R"({"prompt": "x", "repetition_penalty": 10.1})"},
      {"seed", R"({"prompt": "x", "seed": 1.5})"},
      {"seed", R"({"prompt": "x", "seed": 1e30})"},
      {"stop", R"({"prompt": "x", "stop": ""})"},
      {"stop", R"({"prompt": "x", "stop": 5})"},
      {"stop[1]", R"({"prompt": "x", "stop": ["a", 5]})"},
      {"stop_token_ids", R"({"prompt": "x", "stop_token_ids": [1024]})"},
      {"stop_token_ids[0]", R"({"prompt": "x", "stop_token_ids": ["a"]})"},
      {"allowed_token_ids", R"({"prompt": "x", "allowed_token_ids": [-1]})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": [1]})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": {"a": 1}})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": {"07": 1}})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": {"1024": 1}})"},
      {"logit_bias", R"({"prompt": "x", "logit_bias": {"1": 100.5}})"},
      {"logit_bias.1", R"({"prompt": "x", "logit_bias": {"1": "much"}})"},
      {"logprobs", R"({"prompt": "x", "logprobs": -1})"},
      {"logprobs", R"({"prompt": "x", "logprobs": true})"},
      {"prompt_logprobs", R"({"prompt": "x", "prompt_logprobs": -1})"},
      {"prompt_logprobs", R"({"prompt": "x", "prompt_logprobs": 1, "stream": true})"},
      {"truncate_prompt_tokens", R"({"prompt": "x", "truncate_prompt_tokens": 0})"},
      {"priority", R"({"prompt": "x", "priority": 1001})"},
      {"num_speculative_tokens", R"({"prompt": "x", "num_speculative_tokens": 17})"},
      {"num_speculative_tokens", R"({"prompt": "x", "num_speculative_tokens": "ngram:4"})"},
      {"timeout", R"({"prompt": "x", "timeout": 0})"},
      {"echo", R"({"prompt": "x", "echo": 1})"},
      {"stream", R"({"prompt": "x", "stream": "yes"})"},
      {"stream_options", R"({"prompt": "x", "stream_options": {}})"},
      {"stream_options", R"({"prompt": "x", "stream": true, "stream_options": 1})"},
      {"stream_options.include_usage",
       R"({"prompt": "x", "stream": true, "stream_options": {"include_usage": 1}})"},
      {"response_format.type", R"({"prompt": "x", "response_format": {"type": 1}})"},
      {"response_format", R"({"prompt": "x", "response_format": {"type": "json_object"}})"},
      {"prompt", R"({"prompt": "x", "prompt": "y"})"},
  };
  for (const auto& c : cases) CodeOf(kCompletions, c.body, 400, c.param);
  const struct {
    const char* param;
    const char* body;
  } chat_cases[] = {
      {"messages", R"({})"},
      {"messages", R"({"messages": []})"},
      {"messages", R"({"messages": "hi"})"},
      {"messages[0]", R"({"messages": ["hi"]})"},
      {"messages[0].role", R"({"messages": [{"role": "", "content": "x"}]})"},
      {"messages[0].role", R"({"messages": [{"role": 1, "content": "x"}]})"},
      {"messages[1].content", R"({"messages": [{"role": "user", "content": "x"}, {"role": "user"}]})"},
      {"messages[0].content", R"({"messages": [{"role": "user", "content": 1}]})"},
      {"messages[0].content[0].type",
       R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]})"},
      {"messages[0].content", R"({"messages": [{"role": "user", "content": "x", "content": "y"}]})"},
      {"messages[0].tool_calls[0]", R"({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]})"},
      {"messages[0].tool_calls[0].function.arguments",
       R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]})"},
      {"messages[0].tool_calls[0].function.arguments",
       R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "1"}}]}]})"},
      {"messages[0].content", R"({"messages": [{"role": "assistant", "tool_calls": []}]})"},
      {"messages[0].function_call",
       R"({"messages": [{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]})"},
      {"tools[0].function", R"({"messages": [{"role": "user", "content": "x"}], "tools": [{}]})"},
      {"tools[0].function.name",
       R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"function": {"name": 1}}]})"},
      {"tools", R"({"messages": [{"role": "user", "content": "x"}], "tools": {}})"},
      // What is left out is "auto", which would need somebody to read calls out of the answer.
      {"tool_choice",
       R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"function": {"name": "f"}}]})"},
      {"tool_choice", R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": "auto"})"},
      {"tool_choice", R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"})"},
      {"tool_choice",
       R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": {"type": "function"}})"},
      {"functions", R"({"messages": [{"role": "user", "content": "x"}], "functions": [{"name": "f"}]})"},
      {"function_call", R"({"messages": [{"role": "user", "content": "x"}], "function_call": "auto"})"},
      {"modalities", R"({"messages": [{"role": "user", "content": "x"}], "modalities": ["text", "audio"]})"},
      {"documents[0]", R"({"messages": [{"role": "user", "content": "x"}], "documents": ["x"]})"},
      {"chat_template_kwargs",
       R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": 1})"},
      {"chat_template_kwargs.messages",
       R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"messages": []}})"},
      {"response_format",
       R"({"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}})"},
      {"reasoning_effort", R"({"messages": [{"role": "user", "content": "x"}], "reasoning_effort": 1})"},
      {"echo", R"({"messages": [{"role": "user", "content": "x"}], "echo": true})"},
      {"top_logprobs", R"({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2})"},
      {"top_logprobs",
       R"({"messages": [{"role": "user", "content": "x"}], "logprobs": true, "top_logprobs": -1})"},
      {"logprobs", R"({"messages": [{"role": "user", "content": "x"}], "logprobs": 2})"},
      {"max_tokens", R"({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0})"},
      {"max_completion_tokens",
       R"({"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 0})"},
  };
  for (const auto& c : chat_cases) CodeOf(kChat, c.body, 400, c.param);
  EXPECT_EQ(engine_->num_submitted(), 0);
  EXPECT_EQ(Outcomes(Outcome::kInvalid), static_cast<int64_t>(std::size(cases) + std::size(chat_cases)));
  EXPECT_EQ(service_->metrics().ended(), service_->metrics().received());
}

TEST_F(RestTest, BadJsonIsRefused) {
  Load();
  for (const std::string& body :
       std::vector<std::string>{"", "{", "[]", "\"x\"", "{\"prompt\": \"x\"} x", "{\"prompt\": \"\xff\"}",
                                "{\"prompt\": \"\\ud800\"}", "{'prompt': 'x'}", "{\"prompt\": \"x\",}",
                                "{\"a\":" + std::string(40, '[') + std::string(40, ']') + "}"}) {
    for (const char* path :
         {kCompletions, kChat, "/tokenize", "/detokenize", "/v2/models/scripted/generate"}) {
      const HttpReply reply = Post(path, body);
      EXPECT_EQ(reply.status, 400) << path << " " << body;
      const bool kserve = absl::StartsWith(path, "/v2");
      EXPECT_EQ(reply.Error("code"), kserve ? "kserve" : "invalid_json") << path << " " << body;
      EXPECT_EQ(reply.Error("type"), kserve ? "kserve" : "invalid_request_error");
    }
  }
}

TEST_F(RestTest, ErrorsNameWhatTheClientSent) {
  Load();
  const std::string message = R"({"role": "user", "content": ")" + std::string(200, 'x') + "\"}";
  const std::string chat = absl::StrCat(R"({"messages": [)", message, "]");
  EXPECT_EQ(CodeOf(kChat, chat + "}", 400, "messages"), "context_length_exceeded");
  EXPECT_EQ(CodeOf("/v1/responses", absl::StrCat(R"({"input": [)", message, "]}"), 400, "input"),
            "context_length_exceeded");
  EXPECT_EQ(CodeOf("/v2/models/scripted/generate",
                   absl::StrCat(R"({"text_input": ")", std::string(200, 'x'), "\"}"), 400, "text_input"),
            "kserve");
  EXPECT_EQ(
      CodeOf(kCompletions, absl::StrCat(R"({"prompt": ")", std::string(200, 'x'), "\"}"), 400, "prompt"),
      "context_length_exceeded");
  engine_->Refuse(absl::InvalidArgumentError("prompt: must hold at least one token"));
  const HttpReply refused = Post(kChat, R"({"messages": [{"role": "user", "content": "x"}]})");
  EXPECT_EQ(refused.Error("param"), "messages");
  EXPECT_EQ(refused.Error("message"), "messages: must hold at least one token");
}

TEST_F(RestTest, TokenizeNamesItsFields) {
  Load();
  CodeOf("/tokenize", R"({})", 400, "prompt");
  CodeOf("/tokenize", R"({"prompt": 1})", 400, "prompt");
  CodeOf("/tokenize", R"({"prompt": "x", "messages": []})", 400, "prompt");
  CodeOf("/tokenize", R"({"prompt": "x", "add_special_tokens": 1})", 400, "add_special_tokens");
  CodeOf("/detokenize", R"({})", 400, "tokens");
  CodeOf("/detokenize", R"({"tokens": [1024]})", 400, "tokens");
  CodeOf("/detokenize", R"({"tokens": [-1]})", 400, "tokens");
  CodeOf("/detokenize", R"({"tokens": ["a"]})", 400, "tokens[0]");
  EXPECT_EQ(CodeOf("/detokenize", R"({"tokens": [1], "model": "other"})", 404, "model"), "model_not_found");
  EXPECT_EQ(CodeOf("/tokenize", R"({"prompt": "x", "model": "other"})", 404, "model"), "model_not_found");
}

TEST_F(RestTest, RoutesMethodsAndTypes) {
  Load();
  EXPECT_EQ(Call("GET", "/nowhere").status, 404);
  EXPECT_EQ(Call("GET", "/v1/models/other").Error("code"), "model_not_found");
  EXPECT_EQ(Call("GET", "/v1/models/other").status, 404);
  const HttpReply wrong = Call("GET", kCompletions);
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.Header("Allow"), "POST");
  EXPECT_EQ(Post("/v1/models", "{}").Header("Allow"), "GET, HEAD");
  EXPECT_EQ(Call("DELETE", "/v1/models").status, 405);
  EXPECT_EQ(Post(kCompletions, "prompt=x", {{"Content-Type", "application/x-www-form-urlencoded"}}).status,
            415);
  EXPECT_EQ(
      Post(kCompletions, R"({"prompt": "x"})", {{"Content-Type", "application/json; charset=utf-8"}}).status,
      200);
  EXPECT_EQ(Outcomes(Outcome::kInvalid), 1) << "the wrong type; what is no generation request is not counted";
}

TEST_F(RestTest, UnknownModelIsNotFound) {
  Load();
  EXPECT_EQ(CodeOf(kCompletions, R"({"prompt": "x", "model": "other"})", 404, "model"), "model_not_found");
  EXPECT_EQ(Outcomes(Outcome::kNotFound), 1);
}

TEST_F(RestTest, KeysAreAskedForEverywhereButAtProbes) {
  ServiceOptions options;
  options.api_keys = *ApiKeys::Parse("alpha team-a\n");
  Start(std::move(options));
  Load();
  const HttpReply none = Complete(R"({"prompt": "x"})");
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.Header("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(none.Error("code"), "invalid_api_key");
  EXPECT_EQ(Post(kCompletions, R"({"prompt": "x"})", {{"Authorization", "Bearer beta"}}).status, 401);
  EXPECT_EQ(Post(kCompletions, R"({"prompt": "x"})", {{"Authorization", "Basic alpha"}}).status, 401);
  EXPECT_EQ(Post(kCompletions, R"({"prompt": "x"})", {{"Authorization", "bearer alpha"}}).status, 200);
  EXPECT_EQ(engine_->last().tenant, "team-a");
  for (const char* path : {"/v1/models", "/v1/limits", "/version"})
    EXPECT_EQ(Call("GET", path).status, 401) << path;
  for (const char* path : {"/livez", "/readyz", "/startupz", "/health", "/metrics"}) {
    EXPECT_EQ(Call("GET", path).status, 200) << path;
  }
  EXPECT_EQ(Post("/tokenize", R"({"prompt": "x"})").status, 401);
  EXPECT_EQ(none.Header("x-ratelimit-limit-requests"), "");
  EXPECT_EQ(Outcomes(Outcome::kUnauthenticated), 3);
}

TEST_F(RestTest, BusyTenantIsToldToRetry) {
  ServiceOptions options;
  options.limits.max_requests_per_tenant = 1;
  Start(std::move(options));
  Load();
  HttpClient first(server_->port());
  first.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99], "stream": true})"));
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  const HttpReply second = Complete(R"({"prompt": [1]})");
  EXPECT_EQ(second.status, 429);
  EXPECT_EQ(second.Error("code"), "rate_limit_exceeded");
  EXPECT_EQ(second.Header("Retry-After"), "1");
  engine_->Cancel(1);
  EXPECT_THAT(first.Read().Events().back(), "[DONE]");
  EXPECT_EQ(Complete(R"({"prompt": [1]})").status, 200);
  EXPECT_EQ(Outcomes(Outcome::kRejected), 1);
}

TEST_F(RestTest, FullQueueLoadingAndDrainingSayWhenToRetry) {
  auto expect = [this](const char* code) {
    const HttpReply reply = Complete(R"({"prompt": [1]})");
    EXPECT_EQ(reply.status, 503);
    EXPECT_EQ(reply.Header("Retry-After"), "1");
    EXPECT_EQ(reply.Error("code"), code);
  };
  expect("loading");
  Load();
  engine_->Refuse(absl::ResourceExhaustedError("the queue is full"));
  expect("overloaded");
  engine_->Refuse(absl::UnavailableError("a device fault"));
  expect("unavailable");
  service_->BeginDrain();
  expect("draining");
  EXPECT_EQ(Outcomes(Outcome::kRejected), 1);
  EXPECT_EQ(Outcomes(Outcome::kUnavailable), 3);
}

TEST_F(RestTest, ContextLengthHasItsCode) {
  Load();
  const char* const code = "context_length_exceeded";
  EXPECT_EQ(CodeOf(kCompletions, R"({"prompt": [1, 2, 3], "max_tokens": 62})", 400, "prompt"), code);
  EXPECT_EQ(CodeOf(kCompletions, R"({"prompt": [1], "max_tokens": 64})", 400, "max_tokens"), code);
  engine_->Refuse(absl::OutOfRangeError("the prompt has 70 tokens"));
  EXPECT_EQ(CodeOf(kCompletions, R"({"prompt": [1]})", 400, "prompt"), code);
  engine_->Refuse(absl::InvalidArgumentError("min_tokens: forbids every token that may be drawn"));
  EXPECT_EQ(CodeOf(kCompletions, R"({"prompt": [1]})", 400, "min_tokens"), "invalid_value");
}

TEST_F(RestTest, DeadlineIsATimeout) {
  Load();
  const HttpReply whole = Complete(R"({"prompt": [99], "timeout": 0.05})");
  EXPECT_EQ(whole.status, 504);
  EXPECT_EQ(whole.Error("code"), "deadline_exceeded");
  const HttpReply stream = Complete(R"({"prompt": [99], "timeout": 0.05, "stream": true})");
  const std::vector<std::string> events = stream.Events();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(boost::json::parse(events[events.size() - 2]).at("error").at("code"), "deadline_exceeded");
  EXPECT_EQ(Outcomes(Outcome::kDeadline), 2);
}

TEST_F(RestTest, UnknownFieldsAreListed) {
  Load();
  const HttpReply reply = Complete(
      R"({"prompt": "x", "store": true, "metadata": {"a": 1}, "we\r\nird": 1, "stream": true, "stream_options": {"later": 1}})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("X-Sessa-Ignored-Fields"), "stream_options.later, store, metadata, we??ird");
  EXPECT_EQ(Complete(R"({"prompt": "x", "user": "me"})").Header("X-Sessa-Ignored-Fields"), "");
  EXPECT_EQ(Complete(R"({"prompt": "x", "temperature": 9, "store": 1})").status, 400);
}

TEST_F(RestTest, RequestIdIsEchoed) {
  Load();
  for (const char* path : {"/livez", "/nowhere", kCompletions}) {  // 200, 404, 405
    EXPECT_EQ(Call("GET", path, "", {{"X-Request-Id", "abc-123"}}).Header("X-Request-Id"), "abc-123");
  }
  const HttpReply reply = Post(kCompletions, R"({"prompt": "x"})", {{"X-Request-Id", "abc-123"}});
  EXPECT_EQ(reply.Header("X-Request-Id"), "abc-123");
  EXPECT_EQ(reply.Json().at("id"), "cmpl-abc-123");
  EXPECT_EQ(Post(kCompletions, "{", {{"X-Request-Id", "abc-123"}}).Header("X-Request-Id"), "abc-123");
  EXPECT_EQ(Call("GET", "/livez").Header("X-Request-Id").size(), 32u);
  EXPECT_EQ(
      Call("GET", "/livez", "", {{"X-Request-Id", std::string(129, 'x')}}).Header("X-Request-Id").size(),
      32u);
}

TEST_F(RestTest, TemplateOfAClientThatLeftEnds) {
  Load();
  std::atomic<bool> gone = true;
  EXPECT_EQ(service_->RenderChat("", {{{"user", "Hi"}}}, &gone).status().code(),
            absl::StatusCode::kCancelled);
  GenerationRequest request;
  request.is_chat = true;
  request.chat.messages = {{"user", "Hi"}};
  EXPECT_EQ(service_->Generate(request, "", service_->Begin("rest"), &gone).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(Outcomes(Outcome::kCancelled), 1);
  gone = false;
  EXPECT_TRUE(service_->RenderChat("", {{{"user", "Hi"}}}, &gone).ok());
}

}  // namespace
}  // namespace sessa
