// Where chat templates come from and what of a request reaches them; what they render is compared with Jinja2
// in tests/jinja.
#include "server/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace sessa {
namespace {

absl::StatusOr<std::string> Render(std::string_view source) {
  auto chat = ChatTemplate::FromSource(source, "<s>", "</s>");
  if (!chat.ok()) return chat.status();
  return (*chat)->Render({{{"user", "Hi"}, {"assistant", "Yo"}}});
}

TEST(ChatTemplateTest, DefaultAndDemo) {
  EXPECT_EQ(*Render(ChatTemplate::kDefault), "<s>user: Hi\nassistant: Yo\nassistant:");
  auto demo = ChatTemplate::Load(SESSA_DEMO_MODEL);
  ASSERT_TRUE(demo.ok() && *demo != nullptr);
  EXPECT_EQ(*(*demo)->Render({{{"user", "Hi"}}}), "<|endoftext|>user: Hi\nassistant:");
  EXPECT_EQ(*ChatTemplate::Load("/nonexistent"), nullptr);
}

TEST(ChatTemplateTest, ErrorsNameTheLine) {
  for (const char* source : {"{% for x in %}", "\n{{ 1 + }}", "\n\n{% if x %}", "\n{{ a.b.c }}"}) {
    const auto text = Render(source);
    ASSERT_FALSE(text.ok()) << source;
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(text.status().message().find("chat template, line "), std::string::npos) << text.status();
  }
  EXPECT_EQ(Render("{{ raise_exception('no ' + 'way') }}").status().message(),
            "the chat template says: no way");
}

// Everything of a chat is a variable of the template; what the client left out is none.
TEST(ChatTemplateTest, VariablesOfAChat) {
  auto chat = ChatTemplate::FromSource(
      "{{ tools | tojson }}|{{ documents }}|{{ enable_thinking }}|{{ messages[0].name }}|{{ "
      "add_generation_prompt }}",
      "", "");
  ASSERT_TRUE(chat.ok());
  Chat request{{{"user", "Hi", {}, {{"name", "Ann"}}}}};
  EXPECT_EQ(*(*chat)->Render(request), "null|None||Ann|True");
  request.tools = {{{"type", "function"}}};
  request.documents = {{{"title", "a"}}};
  request.template_kwargs = {{"enable_thinking", false}};
  request.add_generation_prompt = false;
  EXPECT_EQ(*(*chat)->Render(request), R"([{"type": "function"}]|[{'title': 'a'}]|False|Ann|False)");
}

// Parts go to a template that writes their texts; others get one text, not Python's form of a list.
TEST(ChatTemplateTest, ContentInParts) {
  const Chat chat{
      {{"user", "a text", {{{"type", "text"}, {"text", "a "}}, {{"type", "text"}, {"text", "text"}}}}}};
  auto reads =
      ChatTemplate::FromSource("{% for p in messages[0].content %}[{{ p.text }}]{% endfor %}", "", "");
  auto does_not = ChatTemplate::FromSource("{{ messages[0].content }}", "", "");
  ASSERT_TRUE(reads.ok() && does_not.ok());
  EXPECT_EQ(*(*reads)->Render(chat), "[a ][text]");
  EXPECT_EQ(*(*does_not)->Render(chat), "a text");
}

// As transformers gives them: a message without the member, with None, and with a text of no characters.
TEST(ChatTemplateTest, NoContent) {
  auto chat = ChatTemplate::FromSource(
      "{{ messages[0].content is defined }}|{{ messages[0].content is none }}|{{ messages[0].content }}|"
      "{{ messages[0] | tojson }}",
      "", "");
  ASSERT_TRUE(chat.ok());
  Chat request{{{"assistant", ""}}};
  EXPECT_EQ(*(*chat)->Render(request), R"(True|False||{"role": "assistant", "content": ""})");
  request.messages[0].form = ChatMessage::Content::kNull;
  EXPECT_EQ(*(*chat)->Render(request), R"(True|True|None|{"role": "assistant", "content": null})");
  auto plain = ChatTemplate::FromSource(ChatTemplate::kDefault, "", "");
  EXPECT_EQ(*(*plain)->Render(request), "assistant: \nassistant:");
  request.messages[0].form = ChatMessage::Content::kAbsent;
  EXPECT_EQ(*(*chat)->Render(request), R"(False|False||{"role": "assistant"})");
}

class ChatTemplateFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "/chat_template_files";
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
    Write("tokenizer.json", "{}");
  }
  void Write(const std::string& name, const std::string& text) { std::ofstream(dir_ + "/" + name) << text; }
  std::string dir_;
};

TEST_F(ChatTemplateFilesTest, WhereItIsRead) {
  const auto text = [&](const std::string& file = "") {
    auto chat = ChatTemplate::Load(dir_, file);
    if (!chat.ok()) return std::string(chat.status().message());
    auto rendered = (*chat)->Render({{{"user", "Hi"}}});
    return rendered.ok() ? *rendered : std::string(rendered.status().message());
  };
  EXPECT_EQ(text(), "user: Hi\nassistant:");
  Write("tokenizer_config.json", R"({"chat_template": "of config", "bos_token": "<s>"})");
  EXPECT_EQ(text(), "of config");
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "of list"}]})");
  EXPECT_EQ(text(), "of list");
  Write("chat_template.jinja", "of file");
  EXPECT_EQ(text(), "of file");
  Write("other.jinja", "of flag");
  EXPECT_EQ(text(dir_ + "/other.jinja"), "of flag");
  EXPECT_NE(text(dir_ + "/none.jinja").find("none.jinja: No such file"), std::string::npos);
}

// The model is served all the same; only who asks for a chat hears of it.
TEST_F(ChatTemplateFilesTest, UnreadableTemplates) {
  Write("chat_template.jinja", "\n{% for x in %}");
  auto chat = ChatTemplate::Load(dir_);
  ASSERT_TRUE(chat.ok());
  EXPECT_NE((*chat)->status().message().find("line 2"), std::string::npos) << (*chat)->status();
  EXPECT_EQ((*chat)->Render({{{"user", "Hi"}}}).status(), (*chat)->status());
  Write("chat_template.jinja", "");
  EXPECT_FALSE((*ChatTemplate::Load(dir_))->status().ok());
  std::filesystem::remove(dir_ + "/chat_template.jinja");
  Write("tokenizer_config.json", R"({"chat_template": 7})");
  EXPECT_FALSE((*ChatTemplate::Load(dir_))->status().ok());
  // One that is asked for by name has to be readable.
  Write("bad.jinja", "{{");
  const auto named = ChatTemplate::Load(dir_, dir_ + "/bad.jinja").status();
  EXPECT_NE(named.message().find("bad.jinja: chat template, line 1"), std::string::npos) << named;
}

}  // namespace
}  // namespace sessa
