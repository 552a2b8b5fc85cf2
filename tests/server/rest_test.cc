// REST: every route, and streams against whole answers. Errors are in rest_errors_test.cc, limits in
// rest_limits_test.cc, the connection's life and drain in rest_connection_test.cc.
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;

TEST_F(RestTest, ProbesTellThreeTruths) {
  auto statuses = [this] {
    std::vector<int> all;
    for (const char* path :
         {"/livez", "/startupz", "/readyz", "/health", "/v2/health/live", "/v2/health/ready"}) {
      all.push_back(Call("GET", path).status);
    }
    return all;
  };
  EXPECT_EQ(statuses(), std::vector<int>({200, 503, 503, 503, 200, 503}));
  EXPECT_EQ(Call("GET", "/readyz").Error("code"), "loading");
  EXPECT_EQ(Call("GET", "/readyz").Header("Retry-After"), "1");
  Load();
  EXPECT_EQ(statuses(), std::vector<int>({200, 200, 200, 200, 200, 200}));
  engine_->SetHealth(absl::InternalError("the device is gone"));
  EXPECT_EQ(statuses(), std::vector<int>({503, 200, 503, 503, 503, 503}));
  EXPECT_THAT(Call("GET", "/readyz").Error("message"), HasSubstr("the device is gone"));
  engine_->SetHealth(absl::OkStatus());
  service_->BeginDrain();
  EXPECT_EQ(statuses(), std::vector<int>({200, 200, 503, 503, 200, 503}));
  EXPECT_EQ(Call("GET", "/readyz").Error("code"), "draining");
}

TEST_F(RestTest, ReportsBeforeAndAfterLoading) {
  EXPECT_EQ(Call("GET", "/version").Json().at("version"), kVersion);
  EXPECT_EQ(Call("GET", "/v1/limits").Json().as_object().count("max_model_len"), 0u);
  EXPECT_EQ(Call("GET", "/v1/models").status, 503);
  EXPECT_THAT(Call("GET", "/metrics").body, HasSubstr("sessa_ready{model_name=\"\"} 0"));
  EXPECT_EQ(Call("GET", "/").Header("Content-Type"), "text/html; charset=utf-8");
  Load();
  const HttpReply limits = Call("GET", "/v1/limits");
  EXPECT_EQ(limits.Json().at("max_model_len"), 64);
  EXPECT_EQ(limits.Json().at("max_n"), 16);
  EXPECT_EQ(limits.Json().at("max_stop"), 4);
  EXPECT_EQ(Call("GET", "/v1/models").Json().at("data").at(0).at("id"), "scripted");
  EXPECT_EQ(Call("GET", "/v1/models/scripted").Json().at("object"), "model");
  EXPECT_EQ(Call("GET", "/v2/models/scripted").Json().at("name"), "scripted");
  EXPECT_EQ(Call("GET", "/v2/models/scripted/ready").status, 200);
  const HttpReply metrics = Call("GET", "/metrics");
  EXPECT_THAT(metrics.Header("Content-Type"), HasSubstr("version=0.0.4"));
  EXPECT_THAT(metrics.body, HasSubstr("sessa_ready{model_name=\"\"} 1"));
}

TEST_F(RestTest, ThePageBringsItsFilesAndAllowsNoOthers) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"/", "text/html; charset=utf-8"},
      {"/web/page.css", "text/css; charset=utf-8"},
      {"/web/page.js", "text/javascript; charset=utf-8"},
      {"/web/text.js", "text/javascript; charset=utf-8"},
      {"/web/api.js", "text/javascript; charset=utf-8"},
      {"/web/load.js", "text/javascript; charset=utf-8"},
      {"/web/metrics.js", "text/javascript; charset=utf-8"},
      {"/web/plots.js", "text/javascript; charset=utf-8"},
      {"/web/chart.js", "text/javascript; charset=utf-8"},
      {"/web/icon.svg", "image/svg+xml"}};
  for (const auto& [path, type] : files) {
    SCOPED_TRACE(path);
    const HttpReply whole = Call("GET", path);
    EXPECT_EQ(whole.status, 200);
    EXPECT_EQ(whole.Header("Content-Type"), type);
    EXPECT_EQ(whole.Header("Content-Length"), absl::StrCat(whole.body.size()));
    EXPECT_EQ(whole.Header("X-Content-Type-Options"), "nosniff");
    EXPECT_EQ(whole.Header("Cache-Control"), "no-cache");
    const std::string policy = whole.Header("Content-Security-Policy");
    EXPECT_THAT(policy, HasSubstr("default-src 'none'; script-src 'self'; style-src 'self'"));
    EXPECT_FALSE(absl::StrContains(policy, "unsafe"));
    const std::string etag = whole.Header("ETag");
    EXPECT_EQ(Call("GET", path, "", {{"If-None-Match", "\"other\""}}).body, whole.body);
    const HttpReply same = Call("GET", path, "", {{"If-None-Match", absl::StrCat("\"other\", W/", etag)}});
    EXPECT_EQ(same.status, 304);
    EXPECT_EQ(same.Header("ETag"), etag);
    EXPECT_EQ(same.Header("Content-Length"), "");
    EXPECT_EQ(same.body, "");
  }
  HttpClient client(server_->port());
  client.Send(RequestBytes("HEAD", "/web/chart.js"));
  EXPECT_GT(std::stoi(client.Read(true).Header("Content-Length")), 100000);
  client.Send(RequestBytes("GET", "/", "", {{"If-None-Match", "*"}}));
  EXPECT_EQ(client.Read().status, 304);
  client.Send(RequestBytes("GET", "/web/nothing"));  // the connection goes on after a 304
  EXPECT_EQ(client.Read().Error("code"), "not_found");
  EXPECT_EQ(Call("POST", "/web/page.js", "{}").Header("Allow"), "GET, HEAD");
}

TEST_F(RestTest, TokenizeAndDetokenize) {
  Load();
  const HttpReply tokens = Post("/tokenize", R"({"prompt": "où est l'œuf?", "add_special_tokens": false})");
  ASSERT_EQ(tokens.status, 200) << tokens.body;
  const boost::json::value ids = tokens.Json().at("tokens");
  EXPECT_EQ(tokens.Json().at("count"), static_cast<int64_t>(ids.as_array().size()));
  EXPECT_EQ(tokens.Json().at("max_model_len"), 64);
  const HttpReply text = Post("/detokenize", absl::StrCat("{\"tokens\": ", boost::json::serialize(ids), "}"));
  EXPECT_EQ(text.Json().at("prompt"), "où est l'œuf?");
  // add_bos_token of the demo: one more in front.
  EXPECT_EQ(Post("/tokenize", R"({"prompt": "x"})").Json().at("tokens").at(0), 0);
  EXPECT_EQ(Post("/tokenize", R"({"messages": [{"role": "user", "content": "x"}]})").status, 200);
}

TEST_F(RestTest, CompletionOfTokensIsWhole) {
  Load();
  const HttpReply reply = Complete(
      R"({"prompt": [5, 6], "max_tokens": 3, "n": 2, "return_token_ids": true, "logprobs": 2, "seed": 7})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const boost::json::value json = reply.Json();
  EXPECT_EQ(json.at("object"), "text_completion");
  EXPECT_EQ(json.at("model"), "scripted");
  ASSERT_EQ(json.at("choices").as_array().size(), 2u);
  const boost::json::value& second = json.at("choices").at(1);
  EXPECT_EQ(second.at("index"), 1);
  EXPECT_EQ(boost::json::serialize(second.at("token_ids")), "[15,16,17]");
  EXPECT_EQ(boost::json::serialize(second.at("prompt_token_ids")), "[5,6]");
  EXPECT_EQ(second.at("finish_reason"), "length");
  EXPECT_EQ(second.at("logprobs").at("token_logprobs"), boost::json::value({-0.5, -1, -1.5}));
  EXPECT_EQ(second.at("logprobs").at("text_offset").as_array().size(), 3u);
  EXPECT_EQ(second.at("logprobs").at("top_logprobs").at(0).as_object().size(), 2u);
  EXPECT_EQ(json.at("usage").at("prompt_tokens"), 2);
  EXPECT_EQ(json.at("usage").at("completion_tokens"), 6);
  EXPECT_EQ(json.at("usage").at("prompt_tokens_details").at("cached_tokens"), 1);
  EXPECT_EQ(engine_->last().sampling.seed, 7u);
  EXPECT_EQ(engine_->last().n, 2);
}

TEST_F(RestTest, ParametersReachTheEngine) {
  Load();
  const HttpReply reply = Complete(
      R"({"prompt": [1], "max_tokens": 5, "min_tokens": 2, "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125,)"
      R"( "presence_penalty": 1.5, "frequency_penalty": -0.5, "repetition_penalty": 2, "seed": 18446744073709551615,)"
      R"( "stop_token_ids": [3], "allowed_token_ids": [4, 5], "logit_bias": {"6": -100}, "ignore_eos": true,)"
      R"( "priority": -3, "timeout": 60, "num_speculative_tokens": 6})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Request r = engine_->last();
  EXPECT_EQ(r.sampling.max_tokens, 5);
  EXPECT_EQ(r.sampling.min_tokens, 2);
  EXPECT_EQ(r.sampling.temperature, 0.5f);
  EXPECT_EQ(r.sampling.top_p, 0.25f);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_EQ(r.sampling.min_p, 0.125f);
  EXPECT_EQ(r.sampling.presence_penalty, 1.5f);
  EXPECT_EQ(r.sampling.frequency_penalty, -0.5f);
  EXPECT_EQ(r.sampling.repetition_penalty, 2.0f);
  EXPECT_EQ(r.sampling.seed, UINT64_MAX);
  EXPECT_EQ(r.sampling.stop_token_ids, std::vector<int32_t>({3}));
  EXPECT_EQ(r.sampling.allowed_token_ids, std::vector<int32_t>({4, 5}));
  EXPECT_EQ(r.sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{6, -100.0f}}));
  EXPECT_TRUE(r.sampling.ignore_eos);
  EXPECT_EQ(r.priority, -3);
  EXPECT_EQ(r.num_speculative_tokens, 6);
  EXPECT_LT(r.deadline, MonotonicNow() + absl::Seconds(61));
}

TEST_F(RestTest, EchoBringsThePromptAndItsLogprobs) {
  Load();
  engine_->SetScript(Ids(" ok"));
  const HttpReply reply = Complete(
      R"({"prompt": "déjà", "add_special_tokens": false, "max_tokens": 9, "echo": true, "logprobs": 0})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const boost::json::value json = reply.Json();
  const boost::json::value& choice = json.at("choices").at(0);
  EXPECT_EQ(choice.at("text"), "déjà ok");
  EXPECT_TRUE(choice.at("logprobs").at("token_logprobs").at(0).is_null());
  EXPECT_EQ(choice.at("logprobs").at("tokens").as_array().size(),
            Ids("déjà").size() + Ids(" ok").size() + 1);  // and eos
  const HttpReply only =
      Complete(R"({"prompt": "déjà", "add_special_tokens": false, "max_tokens": 0, "echo": true})");
  EXPECT_EQ(only.Json().at("choices").at(0).at("text"), "déjà");
  EXPECT_EQ(only.Json().at("usage").at("completion_tokens"), 0);
}

// The joined text of a stream's choices, and their finish reasons.
std::vector<std::string> Joined(const HttpReply& reply, bool chat) {
  std::vector<std::string> texts(2), finishes(2);
  const std::vector<std::string> events = reply.Events();
  EXPECT_EQ(events.back(), "[DONE]");
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const boost::json::value event = boost::json::parse(events[i]);  // refuses ill-formed UTF-8
    for (const boost::json::value& choice : event.at("choices").as_array()) {
      const size_t index = choice.at("index").as_int64();
      EXPECT_EQ(finishes[index], "") << "text after the finish reason";
      if (!chat) texts[index] += std::string(choice.at("text").as_string());
      if (chat && choice.at("delta").as_object().contains("content")) {
        texts[index] += std::string(choice.at("delta").at("content").as_string());
      }
      if (!choice.at("finish_reason").is_null())
        finishes[index] = std::string(choice.at("finish_reason").as_string());
    }
  }
  return {texts[0], finishes[0], texts[1], finishes[1]};
}

std::vector<std::string> Whole(const HttpReply& reply, bool chat) {
  std::vector<std::string> all;
  const boost::json::value json = reply.Json();
  for (const boost::json::value& choice : json.at("choices").as_array()) {
    const boost::json::value& text = chat ? choice.at("message").at("content") : choice.at("text");
    all.push_back(std::string(text.as_string()));
    all.push_back(std::string(choice.at("finish_reason").as_string()));
  }
  return all;
}

TEST_F(RestTest, StreamIsTheWholeAnswerCutIntoPieces) {
  Load();
  // The demo's tokens are of one to three bytes here, so that characters and stop strings span tokens.
  const std::string text = "naïve 🐝 数据 — ok STOP more";
  std::vector<int32_t> script;
  for (const char byte : text) {
    const std::vector<int32_t> one = Ids(std::string(1, byte & 0x80 ? 'x' : byte));
    script.insert(script.end(), one.begin(), one.end());
  }
  std::vector<std::vector<int32_t>> scripts = {Ids(text), script, Ids("🐝")};
  scripts.back().pop_back();  // ends inside a character
  for (const auto& tokens : scripts) {
    engine_->SetScript(tokens);
    for (const char* more :
         {"", R"(, "stop": "STOP")", R"(, "stop": ["据 —", " more"])", R"(, "stop": ["ok ST", "k S"])",
          R"(, "stop": ["STOP"], "include_stop_str_in_output": true)", R"(, "stop": ["never", "mor "])",
          R"(, "max_tokens": 7)", R"(, "stop": ["n"], "min_tokens": 3)", R"(, "echo": true)"}) {
      const std::string body = absl::StrCat(R"({"prompt": "é", "n": 2)", more);
      const std::string tail = absl::StrContains(more, "max_tokens") ? "" : R"(, "max_tokens": 60)";
      const HttpReply whole = Complete(absl::StrCat(body, tail, "}"));
      const HttpReply stream = Complete(absl::StrCat(body, tail, R"(, "stream": true})"));
      ASSERT_EQ(whole.status, 200) << whole.body;
      EXPECT_THAT(stream.Header("Content-Type"), HasSubstr("text/event-stream"));
      EXPECT_EQ(Joined(stream, false), Whole(whole, false)) << more;
    }
  }
}

TEST_F(RestTest, StopStringsEndTheTextWhereTheySay) {
  Load();
  engine_->SetScript(Ids("one, two, three"));
  auto text = [this](const std::string& more) {
    const HttpReply reply = Complete(absl::StrCat(R"({"prompt": "x", "max_tokens": 60, )", more, "}"));
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.Json().at("choices").at(0);
  };
  EXPECT_EQ(text(R"("stop": "two")").at("text"), "one, ");
  EXPECT_EQ(text(R"("stop": "two")").at("stop_reason"), "two");
  EXPECT_EQ(text(R"("stop": ["two", "e, t"])").at("text"), "on");
  EXPECT_EQ(text(R"("stop": "two", "include_stop_str_in_output": true)").at("text"), "one, two");
  EXPECT_EQ(text(R"("stop": "four")").at("finish_reason"), "stop");  // eos
  EXPECT_TRUE(text(R"("stop": "four")").at("stop_reason").is_null());
}

TEST_F(RestTest, ChatStreamsAndWholeAgree) {
  Load();
  engine_->SetScript(Ids("Hello, wörld"));
  const std::string body =
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "n": 2)"
      R"(, "logprobs": true, "top_logprobs": 2)";
  const HttpReply whole = Post("/v1/chat/completions", body + "}");
  ASSERT_EQ(whole.status, 200) << whole.body;
  EXPECT_EQ(whole.Json().at("object"), "chat.completion");
  EXPECT_EQ(whole.Json()
                .at("choices")
                .at(0)
                .at("logprobs")
                .at("content")
                .at(0)
                .at("top_logprobs")
                .as_array()
                .size(),
            2u);
  const HttpReply stream =
      Post("/v1/chat/completions", body + R"(, "stream": true, "stream_options": {"include_usage": true}})");
  EXPECT_EQ(Joined(stream, true), Whole(whole, true));
  const std::vector<std::string> events = stream.Events();
  EXPECT_EQ(boost::json::parse(events[0]).at("choices").at(0).at("delta").at("role"), "assistant");
  const boost::json::value usage = boost::json::parse(events[events.size() - 2]);
  EXPECT_EQ(usage.at("choices").as_array().size(), 0u);
  EXPECT_EQ(usage.at("usage").at("completion_tokens"), whole.Json().at("usage").at("completion_tokens"));
  EXPECT_TRUE(boost::json::parse(events[0]).at("usage").is_null());
}

TEST_F(RestTest, KserveGenerate) {
  Load();
  engine_->SetScript(Ids("Hello"));
  const std::string body =
      R"({"id": "mine", "text_input": "x", "parameters": {"max_tokens": 50, "details": true}})";
  const HttpReply whole = Post("/v2/models/scripted/generate", body);
  ASSERT_EQ(whole.status, 200) << whole.body;
  EXPECT_EQ(whole.Json().at("text_output"), "Hello");
  EXPECT_EQ(whole.Json().at("id"), "mine");
  EXPECT_EQ(whole.Json().at("details").at("finish_reason"), "stop");
  const HttpReply stream = Post("/v2/models/scripted/generate_stream", body);
  std::string text;
  for (const std::string& event : stream.Events())  // JSON alone: the body's end is the end
    text += std::string(boost::json::parse(event).at("text_output").as_string());
  EXPECT_EQ(text, "Hello");
  EXPECT_EQ(Post("/v2/models/other/generate", body).status, 404);
}

TEST_F(RestTest, ManyPromptsGiveChoicesInOrder) {
  Load();
  const HttpReply reply =
      Complete(R"({"prompt": [[1], [2], [3]], "n": 2, "max_tokens": 1, "return_token_ids": true})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  std::string first;
  const boost::json::value json = reply.Json();
  for (const auto& choice : json.at("choices").as_array()) {
    absl::StrAppend(&first, choice.at("token_ids").at(0).as_int64(), " ");
  }
  EXPECT_EQ(first, "1 11 2 12 3 13 ");
}

}  // namespace
}  // namespace sessa
