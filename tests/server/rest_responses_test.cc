// REST: /v1/responses. Events of a stream in OpenAI's order, whole answers, what is refused by name. The
// openai package reads both in tests/e2e.
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "server/rest/request_json.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

constexpr char kResponses[] = "/v1/responses";

class RestResponsesTest : public RestTest {
 protected:
  void SetUp() override {
    Start({});
    Load();
  }
  // The events' data, whose `type` is that of the event.
  std::vector<boost::json::value> EventsOf(const HttpReply& reply) {
    std::vector<boost::json::value> events;
    for (absl::string_view event : absl::StrSplit(reply.body, "\n\n", absl::SkipEmpty())) {
      const std::vector<std::string> lines = absl::StrSplit(event, '\n');
      EXPECT_EQ(lines.size(), 2u) << event;
      events.push_back(boost::json::parse(lines.back().substr(6)));
      EXPECT_EQ("event: " + std::string(events.back().at("type").as_string()), lines.front());
      EXPECT_EQ(events.back().at("sequence_number"), static_cast<int64_t>(events.size()) - 1);
    }
    return events;
  }
};

TEST_F(RestResponsesTest, WholeAnswer) {
  engine_->SetScript(Ids("Hello, wörld"));
  const HttpReply reply =
      Post(kResponses, R"({"model": "scripted", "input": "hi", "instructions": "Be \"brief\".",
      "temperature": 0.5, "metadata": {"a": "b"}, "store": true,
      "include": ["message.output_text.logprobs"], "top_logprobs": 2})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.Header("X-Sessa-Ignored-Fields"), "");
  const boost::json::value response = reply.Json();
  EXPECT_EQ(response.at("object"), "response");
  EXPECT_EQ(response.at("status"), "completed");
  EXPECT_EQ(response.at("model"), "scripted");
  EXPECT_EQ(response.at("instructions"), "Be \"brief\".");
  EXPECT_EQ(response.at("temperature"), 0.5);
  EXPECT_EQ(response.at("metadata").at("a"), "b");
  EXPECT_EQ(response.at("store"), false);
  EXPECT_TRUE(response.at("error").is_null());
  const boost::json::value& item = response.at("output").at(0);
  EXPECT_EQ(item.at("role"), "assistant");
  EXPECT_EQ(item.at("status"), "completed");
  EXPECT_EQ(item.at("content").at(0).at("text"), "Hello, wörld");
  EXPECT_EQ(item.at("content").at(0).at("logprobs").as_array().size(), Ids("Hello, wörld").size() + 1);
  EXPECT_EQ(response.at("usage").at("output_tokens"), static_cast<int64_t>(Ids("Hello, wörld").size()) + 1);
  const HttpReply cut = Post(kResponses, R"({"input": "hi", "max_output_tokens": 2})");
  EXPECT_EQ(cut.Json().at("status"), "incomplete");
  EXPECT_EQ(cut.Json().at("incomplete_details").at("reason"), "max_output_tokens");
}

TEST_F(RestResponsesTest, StreamIsTheWholeAnswerInEvents) {
  engine_->SetScript(Ids("Hello, 🐝 wörld"));
  const HttpReply reply =
      Post(kResponses, R"({"input": [{"role": "user", "content": "hi"}], "stream": true})");
  const std::vector<boost::json::value> events = EventsOf(reply);
  std::vector<std::string> types;
  std::string text;
  for (const boost::json::value& event : events) {
    const std::string type(event.at("type").as_string());
    if (type == "response.output_text.delta") text += std::string(event.at("delta").as_string());
    if (types.empty() || types.back() != type) types.push_back(type);
  }
  EXPECT_EQ(types,
            std::vector<std::string>(
                {"response.created", "response.in_progress", "response.output_item.added",
                 "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                 "response.content_part.done", "response.output_item.done", "response.completed"}));
  EXPECT_EQ(text, "Hello, 🐝 wörld");
  const boost::json::value& last = events.back().at("response");
  EXPECT_EQ(last.at("output").at(0).at("content").at(0).at("text").as_string(), text);
  EXPECT_EQ(events.front().at("response").at("status"), "in_progress");
  EXPECT_EQ(events.front().at("response").at("id"), last.at("id"));
  EXPECT_EQ(events[2].at("item").at("id"), last.at("output").at(0).at("id"));
}

TEST_F(RestResponsesTest, AStreamThatFailsSaysSo) {
  const HttpReply reply =
      Post(kResponses, R"({"input": "hi", "stream": true, "timeout": 0.05, "add_special_tokens": false})");
  EXPECT_EQ(reply.status, 200);
  engine_->Refuse(absl::UnavailableError("a device fault"));
  EXPECT_EQ(Post(kResponses, R"({"input": "hi", "stream": true})").status, 503);
}

TEST_F(RestResponsesTest, WhatIsNotServedIsNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"input", "{}"},
      {"input", R"({"input": []})"},
      {"input", R"({"input": 5})"},
      {"input[0].role", R"({"input": [{"content": "x"}]})"},
      {"input[0].content", R"({"input": [{"role": "user"}]})"},
      {"input[0].content[0].type", R"({"input": [{"role": "user", "content": [{"type": "input_image"}]}]})"},
      {"input[0].type", R"({"input": [{"type": "function_call_output", "output": "x"}]})"},
      {"previous_response_id", R"({"input": "x", "previous_response_id": "resp_1"})"},
      {"conversation", R"({"input": "x", "conversation": "c"})"},
      {"prompt", R"({"input": "x", "prompt": {"id": "p"}})"},
      {"background", R"({"input": "x", "background": true})"},
      {"truncation", R"({"input": "x", "truncation": "auto"})"},
      {"text.format", R"({"input": "x", "text": {"format": {"type": "json_object"}}})"},
      {"text.verbosity", R"({"input": "x", "text": {"verbosity": "high"}})"},
      {"tool_choice", R"({"input": "x", "tool_choice": "required"})"},
      {"tool_choice", R"({"input": "x", "tools": [{"type": "function", "name": "f"}]})"},
      {"tools[0].type", R"({"input": "x", "tools": [{"type": "web_search"}]})"},
      {"n", R"({"input": "x", "n": 2})"},
      {"max_output_tokens", R"({"input": "x", "max_output_tokens": 0})"},
      {"top_logprobs", R"({"input": "x", "top_logprobs": 2})"},
      {"guided_json", R"({"input": "x", "guided_json": {}})"}};
  for (const auto& [param, body] : cases) CodeOf(kResponses, body, 400, param);
  EXPECT_EQ(engine_->num_submitted(), 0);
  EXPECT_EQ(service_->metrics().ended(), service_->metrics().received());
}

TEST(ParseResponsesTest, BecomesAChat) {
  const auto parsed = ParseResponses(R"({"instructions": "S", "input": [
      {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
      {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c"}]}],
      "tools": [{"type": "function", "name": "f", "parameters": {}}], "tool_choice": "none",
      "reasoning": {"effort": "low"}})",
                                     Limits());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Chat& chat = parsed->request.chat;
  ASSERT_EQ(chat.messages.size(), 3u);
  EXPECT_EQ(chat.messages[0].role, "system");
  EXPECT_EQ(chat.messages[0].content, "S");
  EXPECT_EQ(chat.messages[1].content, "ab");
  EXPECT_EQ(chat.messages[2].content, "c");
  EXPECT_EQ(boost::json::serialize(chat.tools),
            R"([{"type":"function","function":{"name":"f","parameters":{}}}])");
  EXPECT_EQ(boost::json::serialize(chat.template_kwargs), R"({"reasoning_effort":"low"})");
}

}  // namespace
}  // namespace sessa
