// Chats over gRPC: what a template gets of one is what it gets of the same chat over REST, and what is wrong
// with one has the same name.
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/core/errors.h"
#include "server/grpc/convert.h"
#include "server/rest/request_json.h"
#include "server/tokenizer/chat_template.h"
#include "sessa/v1/generation.pb.h"

namespace sessa {
namespace {

namespace pb = sessa::v1;

std::string Render(const Chat& chat) {
  auto everything = ChatTemplate::FromSource(
      "{{ messages | tojson }}|{{ tools | tojson }}|{{ documents | tojson }}|{{ enable_thinking }}|"
      "{{ add_generation_prompt }}",
      "", "");
  return *(*everything)->Render(chat);
}

TEST(GrpcChatTest, ATemplateGetsWhatItGetsOverRest) {
  pb::Chat chat;
  pb::ChatMessage* user = chat.add_messages();
  user->set_role("user");
  user->set_content("x");
  user->set_name("ann");
  pb::ChatMessage* call = chat.add_messages();
  call->set_role("assistant");
  call->set_more(R"({"reasoning_content": "so"})");
  pb::ToolCall* first = call->add_tool_calls();
  first->set_id("1");
  first->set_name("f");
  first->set_arguments(R"({"z": 1, "a": [9007199254740993, 1.0]})");
  call->add_tool_calls()->set_name("g");
  pb::ChatMessage* answer = chat.add_messages();
  answer->set_role("tool");
  answer->set_tool_call_id("1");
  answer->set_content("7");
  chat.set_add_generation_prompt(false);
  chat.set_tools(
      R"([{"type": "function", "function": {"name": "f", "description": "d", "a": {"z": 1, "b": 2}}}])");
  chat.set_documents(R"([{"title": "t", "text": "u"}])");
  chat.set_chat_template_kwargs(R"({"enable_thinking": false})");
  const auto converted = FromProto(chat, Limits());
  ASSERT_TRUE(converted.ok()) << converted.status();
  const auto parsed = ParseChatCompletion(R"({"messages": [
      {"role": "user", "content": "x", "name": "ann"},
      {"role": "assistant", "content": null, "tool_calls": [
        {"id": "1", "type": "function",
         "function": {"name": "f", "arguments": "{\"z\": 1, \"a\": [9007199254740993, 1.0]}"}},
        {"type": "function", "function": {"name": "g"}}], "reasoning_content": "so"},
      {"role": "tool", "content": "7", "tool_call_id": "1"}],
      "tools": [{"type": "function", "function": {"name": "f", "description": "d", "a": {"z": 1, "b": 2}}}],
      "tool_choice": "none", "documents": [{"title": "t", "text": "u"}],
      "chat_template_kwargs": {"enable_thinking": false}, "add_generation_prompt": false})",
                                          Limits());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(Render(*converted), Render(parsed->request.chat));
  EXPECT_NE(Render(*converted).find(R"("content": null)"), std::string::npos);
  EXPECT_NE(Render(*converted).find(R"({"z": 1, "a": [9007199254740993, 1.0]})"), std::string::npos);
}

// A client that knows of no unset content sends none where it means an empty one.
TEST(GrpcChatTest, AnUnsetContentIsNoneBesideToolCallsAlone) {
  pb::Chat chat;
  chat.add_messages()->set_role("user");
  EXPECT_EQ(FromProto(chat, Limits())->messages[0].form, ChatMessage::Content::kText);
  chat.mutable_messages(0)->add_tool_calls()->set_name("f");
  EXPECT_EQ(FromProto(chat, Limits())->messages[0].form, ChatMessage::Content::kNull);
  chat.mutable_messages(0)->set_content("");
  EXPECT_EQ(FromProto(chat, Limits())->messages[0].form, ChatMessage::Content::kText);
}

TEST(GrpcChatTest, ErrorsNameTheField) {
  const auto param = [](const auto& change) {
    pb::Chat chat;
    chat.add_messages()->set_role("user");
    change(&chat);
    const auto converted = FromProto(chat, Limits());
    EXPECT_FALSE(converted.ok());
    return converted.ok() ? "" : Describe(converted.status()).param;
  };
  EXPECT_EQ(param([](pb::Chat* c) { c->set_tools("[{"); }), "tools");
  EXPECT_EQ(param([](pb::Chat* c) { c->set_tools("[{}]"); }), "tools[0].function");
  EXPECT_EQ(param([](pb::Chat* c) { c->set_tools("{}"); }), "tools");
  EXPECT_EQ(param([](pb::Chat* c) { c->set_documents("[1]"); }), "documents[0]");
  EXPECT_EQ(param([](pb::Chat* c) { c->set_documents(R"([{"a": 1, "a": 2}])"); }), "documents");
  EXPECT_EQ(param([](pb::Chat* c) { c->set_chat_template_kwargs("[]"); }), "chat_template_kwargs");
  EXPECT_EQ(param([](pb::Chat* c) { c->set_chat_template_kwargs(R"({"tools": 1})"); }),
            "chat_template_kwargs.tools");
  EXPECT_EQ(param([](pb::Chat* c) { c->set_documents(std::string(100, '[')); }), "documents");
  EXPECT_EQ(param([](pb::Chat* c) { c->mutable_messages(0)->set_more("1"); }), "messages[0].more");
  EXPECT_EQ(param([](pb::Chat* c) { c->mutable_messages(0)->set_more(R"({"role": "x"})"); }),
            "messages[0].more");
  EXPECT_EQ(param([](pb::Chat* c) { c->mutable_messages(0)->add_tool_calls(); }),
            "messages[0].tool_calls[0].function.name");
  EXPECT_EQ(param([](pb::Chat* c) {
              c->mutable_messages(0)->add_tool_calls()->set_name("f");
              c->mutable_messages(0)->mutable_tool_calls(0)->set_arguments("[]");
            }),
            "messages[0].tool_calls[0].function.arguments");
}

// Two bytes of a message and five of a call become hundreds of their JSON: they are counted first.
TEST(GrpcChatTest, MessagesAndCallsAreCounted) {
  const Limits limits;
  const auto chat_of = [](size_t messages, size_t calls) {
    pb::Chat chat;
    for (size_t i = 0; i < messages; ++i) chat.add_messages()->set_role("user");
    for (size_t i = 0; i < calls; ++i)
      chat.mutable_messages(static_cast<int>(i % messages))->add_tool_calls()->set_name("f");
    return chat;
  };
  EXPECT_TRUE(FromProto(chat_of(limits.max_messages, 0), limits).ok());
  EXPECT_EQ(Describe(FromProto(chat_of(limits.max_messages + 1, 0), limits).status()).param, "messages");
  EXPECT_TRUE(FromProto(chat_of(2, limits.max_messages), limits).ok());
  EXPECT_EQ(Describe(FromProto(chat_of(2, limits.max_messages + 1), limits).status()).param, "messages");
}

}  // namespace
}  // namespace sessa
