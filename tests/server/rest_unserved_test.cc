// REST: fields that would change the answer and are not served are refused by name, wherever they come; what
// asks for nothing is let through. What a chat's template may read reaches it whole.
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "server/rest/request_json.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

constexpr char kCompletions[] = "/v1/completions";
constexpr char kChat[] = "/v1/chat/completions";
constexpr char kKserve[] = "/v2/models/scripted/generate";

TEST_F(RestTest, FieldsThatWouldChangeTheAnswerAreRefusedByName) {
  Load();
  const std::vector<std::pair<std::string, std::string>> members = {
      {"guided_json", R"({"type": "object"})"},
      {"guided_regex", R"("[a-z]+")"},
      {"guided_choice", R"(["a", "b"])"},
      {"guided_grammar", R"("root ::= 'a'")"},
      {"structured_outputs", R"({"choice": ["a"]})"},
      {"structural_tag", R"({})"},
      {"regex", R"("a")"},
      {"ebnf", R"("a")"},
      {"json_schema", R"("{}")"},
      {"grammar", R"("root ::= 'a'")"},
      {"bad_words", R"(["x"])"},
      {"logits_processors", R"(["x"])"},
      {"use_beam_search", "true"},
      {"length_penalty", "1.5"},
      {"early_stopping", "true"},
      {"typical_p", "0.5"},
      {"mirostat", "2"},
      {"repeat_penalty", "1.1"},
      {"detokenize", "false"},
      {"spaces_between_special_tokens", "false"},
      {"return_tokens_as_token_ids", "true"},
      {"continue_final_message", "true"},
      {"chat_template", R"("{{ messages }}")"},
      {"prompt_embeds", R"("AA==")"},
      {"lora_path", R"("x")"},
      {"verbosity", R"("high")"}};
  for (const auto& [name, value] : members) {
    const std::string member = absl::StrCat(", \"", name, "\": ", value, "}");
    EXPECT_EQ(CodeOf(kCompletions, R"({"prompt": "x")" + member, 400, name), "unsupported_field");
    EXPECT_EQ(CodeOf(kChat, R"({"messages": [{"role": "user", "content": "x"}])" + member, 400, name),
              "unsupported_field");
    CodeOf(kKserve, R"({"text_input": "x", "parameters": {"a": 0)" + member + "}", 400, "parameters." + name);
  }
  EXPECT_EQ(engine_->num_submitted(), 0);
}

TEST_F(RestTest, WhatAsksForNothingIsServed) {
  Load();
  const std::string members =
      R"(, "guided_json": null, "structured_outputs": null, "bad_words": [], "logits_processors": [])"
      R"(, "use_beam_search": false, "length_penalty": 1.0, "typical_p": 1, "mirostat": 0, "detokenize": true)"
      R"(, "spaces_between_special_tokens": true, "verbosity": "medium", "response_format": {"type": "text"})";
  const HttpReply completion = Complete(R"({"prompt": "x")" + members + "}");
  EXPECT_EQ(completion.status, 200) << completion.body;
  EXPECT_EQ(completion.Header("X-Sessa-Ignored-Fields"), "");
  const HttpReply chat =
      Post(kChat, R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": "none", "tools": [])" +
                      members + "}");
  EXPECT_EQ(chat.status, 200) << chat.body;
  EXPECT_EQ(chat.Header("X-Sessa-Ignored-Fields"), "");
}

TEST_F(RestTest, ToolsAreServedWhereNoneIsToBeCalled) {
  Load();
  const HttpReply reply = Post(kChat, R"({"messages": [
      {"role": "user", "content": "x"},
      {"role": "assistant", "content": null, "tool_calls":
        [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
      {"role": "tool", "tool_call_id": "1", "content": "7"}],
      "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
      "tool_choice": "none", "max_tokens": 2})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.Header("X-Sessa-Ignored-Fields"), "");
}

TEST(ParseChatTest, KeepsWhatATemplateMayRead) {
  const auto parsed = ParseChatCompletion(R"({"messages": [
      {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\"a\": [1]}"}},
                                           {"id": "2", "function": {"name": "g"}}]},
      {"role": "tool", "tool_call_id": "1", "content": "7", "weight": null}],
      "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none",
      "documents": [{"title": "t"}], "chat_template_kwargs": {"enable_thinking": false},
      "reasoning_effort": "low", "add_generation_prompt": false})",
                                          Limits());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Chat& chat = parsed->request.chat;
  ASSERT_EQ(chat.messages.size(), 3u);
  EXPECT_EQ(chat.messages[0].content, "ab");
  EXPECT_EQ(chat.messages[0].parts.size(), 2u);
  EXPECT_EQ(boost::json::serialize(chat.messages[0].more), R"({"name":"ann"})");
  EXPECT_EQ(chat.messages[1].content, "");
  EXPECT_EQ(chat.messages[1].form, ChatMessage::Content::kAbsent);
  EXPECT_EQ(chat.messages[2].form, ChatMessage::Content::kText);
  EXPECT_EQ(boost::json::serialize(chat.messages[1].more),
            R"({"tool_calls":[{"id":"1","function":{"name":"f","arguments":{"a":[1]}}},)"
            R"({"id":"2","function":{"name":"g","arguments":{}}}]})");
  EXPECT_TRUE(chat.messages[2].parts.empty());
  EXPECT_EQ(boost::json::serialize(chat.messages[2].more), R"({"tool_call_id":"1"})");
  EXPECT_EQ(boost::json::serialize(chat.tools), R"([{"type":"function","function":{"name":"f"}}])");
  EXPECT_EQ(boost::json::serialize(chat.documents), R"([{"title":"t"}])");
  EXPECT_EQ(boost::json::serialize(chat.template_kwargs),
            R"({"enable_thinking":false,"reasoning_effort":"low"})");
  EXPECT_FALSE(chat.add_generation_prompt);
}

}  // namespace
}  // namespace sessa
