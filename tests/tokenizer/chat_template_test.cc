// Errors and bounds of chat templates; what they render is compared with Jinja2 in compare_test.py.
#include "server/tokenizer/chat_template.h"

#include <gtest/gtest.h>

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
  const std::pair<const char*, const char*> cases[] = {
      {"{% for x in %}", "line 1"},
      {"a\n{{ 1 + }}", "line 2"},
      {"\n\n{% if x %}", "line 3"},
      {"{% endif %}", "unexpected 'endif'"},
      {"{% macro f() %}{% endmacro %}", "'macro' is not supported"},
      {"{% include 'x' %}", "'include' is not supported"},
      {"{{ 'abc }}", "a string has no end"},
      {"{# abc", "a comment has no end"},
      {"{{ abc", "a tag has no end"},
      {"{{ 1 < 2 < 3 }}", "chains of comparisons"},
      {"{{ a.b.c }}", "member 'b' of something undefined"},
      {"{{ messages | tojson }}", "filter 'tojson'"},
      {"{{ 'a'.encode() }}", "method 'encode'"},
      {"{{ open('x') }}", "function 'open'"},
      {"{{ 1 // 0 }}", "divides by zero"},
      {"{{ 9223372036854775807 + 1 }}", "overflows"},
      {"{{ 99999999999999999999 }}", "too large"},
      {"{{ 1 + 'a' }}", "kinds of values"},
      {"{{ raise_exception('no ' + 'way') }}", "the chat template says: no way"},
      {"{% for c in 5 %}{% endfor %}", "only a list"},
      {"{% set x.y = 1 %}", "'x' is no namespace"},
      {"{{ 'a'[::0] }}", "step is 0"},
      {"{{ $ }}", "unexpected character"},
  };
  for (const auto& [source, expected] : cases) {
    const auto text = Render(source);
    ASSERT_FALSE(text.ok()) << source;
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(text.status().message().find(expected), std::string::npos) << source << ": " << text.status();
  }
}

}  // namespace
}  // namespace sessa
