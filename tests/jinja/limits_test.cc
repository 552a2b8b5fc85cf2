// Chat templates that would run for long, fill the memory or end the stack: each limit of budget.h and
// parser.h at its edge, what a step costs for each operation that copies or searches, and cancelling.
#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/jinja/budget.h"
#include "server/jinja/evaluator.h"
#include "server/tokenizer/chat_template.h"

namespace sessa {
namespace {

using jinja::Budget;
using jinja::RenderLimits;

std::string Repeat(std::string_view piece, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += piece;
  return out;
}

struct Rendered {
  absl::StatusOr<std::string> text;
  int64_t num_steps = 0, num_bytes_left = 0;
};
// With a text of `num_bytes` letters as `s`.
Rendered Render(std::string_view source, const RenderLimits& limits = {}, size_t num_bytes = 0) {
  auto parsed = jinja::Parse(source);
  if (!parsed.ok()) return {parsed.status()};
  Budget budget(limits);
  Rendered r;
  r.text = jinja::Render(**parsed, {{"s", budget.Text(std::string(num_bytes, 'x'))}}, &budget);
  r.num_steps = budget.num_steps();
  r.num_bytes_left = budget.num_bytes();
  return r;
}
void ExpectFails(std::string_view source, std::string_view why, const RenderLimits& limits = {},
                 size_t num_bytes = 0) {
  const Rendered r = Render(source, limits, num_bytes);
  ASSERT_FALSE(r.text.ok()) << source.substr(0, 200);
  EXPECT_EQ(r.text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(r.text.status().message()).find(why), std::string::npos)
      << source.substr(0, 200) << ": " << r.text.status();
  EXPECT_LE(r.text.status().message().size(), 600u);
  EXPECT_EQ(r.num_bytes_left, 0) << source.substr(0, 200);
}

TEST(ChatTemplateLimitsTest, ChainsOfOperators) {
  const auto chain = [](std::string_view term, int count) { return "{{ 1" + Repeat(term, count) + " }}"; };
  EXPECT_EQ(*Render(chain("+1", jinja::kMaxExpressionDepth - 1)).text, "250");
  ExpectFails(chain("+1", jinja::kMaxExpressionDepth), "too deep");
  for (const char* term : {"+1", "-1", "*1", "**1", " and 1", " or 1", "|string", ".a", "[0]", "[0:1]", "()",
                           "|d|d", " if 1", "|default(1)", ".get('a')"}) {
    ExpectFails(chain(term, 20000), "too deep");
  }
  // Those of one level, however long they are.
  EXPECT_EQ(Render(chain("~1", 20000)).text->size(), 20001u);
  EXPECT_EQ(*Render(chain(" < 2 == 2", 2000)).text, "False");
}

TEST(ChatTemplateLimitsTest, Nesting) {
  const int n = jinja::kMaxNesting;  // the template itself and each output's expression are levels too
  EXPECT_EQ(*Render("{{ " + Repeat("(", n - 2) + "1" + Repeat(")", n - 2) + " }}").text, "1");
  ExpectFails("{{ " + Repeat("(", n - 1) + "1" + Repeat(")", n - 1) + " }}", "nested too deep");
  const std::pair<const char*, const char*> pairs[] = {
      {"(", ")"},      {"[", "]"},   {"-", ""},     {"not ", ""},         {"+", ""},
      {"a(", ")"},     {"a[", "]"},  {"1 if ", ""}, {"1 if 1 else ", ""}, {"a|d(", ")"},
      {"a.b(c=", ")"}, {"[1,", "]"}, {"a[1:", "]"}, {"{1:", "}"}};
  for (const auto& [opening, closing] : pairs)
    ExpectFails("{{ " + Repeat(opening, 20000) + "1" + Repeat(closing, 20000) + " }}", "too deep");
  ExpectFails("{% set " + Repeat("(", 20000) + "x" + Repeat(")", 20000) + " = 1 %}", "nested too deep");
  for (const char* opening : {"{% if 1 %}", "{% for x in [1] %}", "{% if 0 %}{% else %}{% if 1 %}",
                              "{% for x in y if 1 %}{% else %}"}) {
    ExpectFails(Repeat(opening, 20000), "nested too deep");
  }
  EXPECT_EQ(*Render("{% if 0 %}" + Repeat("{% elif 0 %}", 20000) + "{% endif %}").text, "");
  for (const char* opening : {"{% macro f() %}", "{% call f() %}", "{% set x %}", "{% filter upper %}",
                              "{% with %}", "{% generation %}"}) {
    ExpectFails(Repeat(opening, 20000), "nested too deep");
  }
}

TEST(ChatTemplateLimitsTest, Source) {
  const std::string source(jinja::kMaxSourceBytes, 'x');
  EXPECT_EQ(Render(source).text->size(), jinja::kMaxSourceBytes);
  ExpectFails(source + "x", "at most 1048576");
}

// Values that hold themselves, again and again: walking and freeing them must not end the stack, and a text
// that a value with shared parts would have is not written.
TEST(ChatTemplateLimitsTest, RecursiveValues) {
  const auto loop = [](std::string_view next, int count) {
    return absl::StrCat("{% set ns = namespace(v=[1]) %}{% for i in range(", count,
                        ") %}{% set ns.v = ", std::string(next), " %}{% endfor %}");
  };
  for (const char* next : {"[ns.v]", "(ns.v,)", "{'a': ns.v}", "[1] + [ns.v]", "[[ns.v]][0:1]",
                           "{'a': ns.v}.items()", "{'a': ns.v}.values()", "ns.v | map('string')",
                           "ns.v | select", "ns.v | items", "cycler(ns.v)", "joiner(ns.v)", "[ns.v].index"}) {
    ExpectFails(loop(next, 100000), "nested too deep");
  }
  const int n = RenderLimits().max_depth;  // the first list is a level too
  EXPECT_TRUE(Render(loop("[ns.v]", n - 1) + "{{ ns.v == ns.v }}{{ ns.v }}{{ ns.v | tojson }}").text.ok());
  ExpectFails(loop("[ns.v]", n), "nested too deep");
  // 2^60 leaves of two pages of memory.
  const std::string twice = loop("[ns.v, ns.v]", 60);
  EXPECT_TRUE(Render(twice).text.ok());
  for (const char* reads :
       {"{{ ns.v }}", "{{ ns.v | string | length }}", "{{ ns.v ~ '' }}", "{{ ns.v | join }}",
        "{{ ns.v | upper }}", "{{ ns.v | tojson }}", "{{ raise_exception(ns.v) }}"}) {
    ExpectFails(twice + reads, "too");
  }
  ExpectFails(twice + "{% set a = namespace(v=ns.v) %}" + loop("[ns.v, ns.v]", 60) + "{{ a.v == ns.v }}",
              "too many steps");
}

// Namespaces can be changed, so they can hold each other, or themselves.
TEST(ChatTemplateLimitsTest, NamespacesInCircles) {
  const std::string itself = "{% set ns = namespace() %}{% set ns.v = [ns] %}";
  EXPECT_EQ(*Render(itself + "{{ ns }}").text, "<Namespace {'v': [<Namespace {...}>]}>");
  EXPECT_EQ(*Render(itself + "{{ ns == ns.v[0] }}").text, "True");
  ExpectFails(itself + "{{ ns | tojson }}", "not JSON serializable");
  const std::string chain =
      "{% set ns = namespace() %}{% for i in range(50000) %}{% set ns.v = namespace(a=ns.v) %}{% endfor %}";
  const Rendered r = Render(chain);
  EXPECT_TRUE(r.text.ok()) << r.text.status();
  EXPECT_EQ(r.num_bytes_left, 0);
  ExpectFails(chain + "{{ ns }}", "nested too deep");
  // A loop or a macro that is kept.
  for (
      const char* source :
      {"{% set ns = namespace() %}{% for i in [1] %}{% set ns.l = loop %}{{ loop.changed(loop) }}{% endfor "
       "%}",
       "{% set ns = namespace() %}{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}{% set ns.f = f %}"
       "{% set ns.k = ns.f %}{% endfor %}{{ ns.f() }}",
       "{% set ns = namespace() %}{% for i in [1, 2] if i %}{% set ns.l = loop %}{% endfor %}{{ ns.l.last }}",
       "{% macro f() %}{% set n = namespace(c=caller) %}{{ n.c() }}{% endmacro %}"
       "{% call f() %}x{% endcall %}"}) {
    const Rendered kept = Render(source);
    EXPECT_TRUE(kept.text.ok()) << source << kept.text.status();
    EXPECT_EQ(kept.num_bytes_left, 0) << source;
  }
}

// Whatever calls itself: the stack's end is not reached.
TEST(ChatTemplateLimitsTest, Recursion) {
  const std::string nested = "{{ " + Repeat("(", 80) + "f(x)" + Repeat(")", 80) + " }}";
  for (const std::string& source :
       {std::string("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"),
        "{% macro f(x) %}{% if 1 %}{% for i in [1] %}" + nested +
            "{% endfor %}{% endif %}{% endmacro %}{{ f(1) }}",
        std::string("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
        std::string("{% macro f() %}{% call f() %}{% endcall %}{{ caller }}{% endmacro %}{{ f() }}"),
        std::string("{% macro f(x=f()) %}{% endmacro %}{{ f() }}")}) {
    ExpectFails(source, "nested too deep");
  }
  EXPECT_EQ(
      *Render("{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}x{% endif %}{% endmacro %}{{ f(100) | length }}")
           .text,
      "100");
}

TEST(ChatTemplateLimitsTest, Bytes) {
  RenderLimits limits;
  limits.max_bytes = 1 << 20;
  // Whatever makes it larger each time.
  for (const char* next :
       {"ns.v + ns.v", "ns.v ~ ns.v", "ns.v.replace('x', 'xx')", "ns.v | replace('x', 'xx')",
        "[ns.v, ns.v] | join", "[ns.v, ns.v] | join(ns.v)", "[ns.v, ns.v] | string"}) {
    ExpectFails(absl::StrCat("{% set ns = namespace(v='x') %}{% for i in range(64) %}{% set ns.v = ", next,
                             " %}{% endfor %}"),
                "too large", limits);
  }
  for (const char* next : {"ns.v + ns.v", "ns.v + [1]", "ns.v + ns.v[::-1]"}) {
    ExpectFails(absl::StrCat("{% set ns = namespace(v=[1, 2]) %}{% for i in range(100000) %}{% set ns.v = ",
                             next, " %}{% endfor %}"),
                "too", limits);
  }
  ExpectFails("{{ range(100000) | list }}", "too large", limits);
  ExpectFails("{{ range(9223372036854775807) }}", "too big", limits);
  ExpectFails("{{ s.split('x') }}", "too large", limits, 100000);
  ExpectFails("{{ s[::-1] }}", "too large", limits, 300000);  // 4 bytes for each character while it walks
  // The output counts, with what lives.
  ExpectFails("{% for i in range(1000) %}{{ s }}{% endfor %}", "too large", limits, 2000);
  ExpectFails(
      "{% for i in range(10000) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "{% endfor %}",
      "too large", limits);
  // What is let go is given back: a thousand times 900 KB one after the other are within it.
  limits.max_steps = 1 << 30;
  EXPECT_TRUE(
      Render("{% for i in range(1000) %}{% set t = s + 'y' %}{% endfor %}", limits, 400000).text.ok());
  // The edge, to the byte: a text of 1000 bytes is 1000 and its node.
  const int64_t node = sizeof(jinja::Node<std::string>);
  limits.max_bytes = 1000 + node;
  Budget fits(limits);
  EXPECT_TRUE(fits.Text(std::string(1000, 'x')).is_defined());
  Budget full(limits);
  EXPECT_FALSE(full.Text(std::string(1001, 'x')).is_defined());
  EXPECT_FALSE(full.ok());
  EXPECT_EQ(full.num_bytes(), 0);
}

TEST(ChatTemplateLimitsTest, Steps) {
  EXPECT_TRUE(
      Render("{% for a in range(100) %}{% for b in range(1000) %}x{% endfor %}{% endfor %}").text.ok());
  ExpectFails("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
              "too many steps");
  const Rendered r = Render("{{ 1 + 2 }}");  // s, output, +, 1, 2, the sum, and the text twice
  EXPECT_EQ(r.num_steps, 8);
  RenderLimits limits;
  limits.max_steps = r.num_steps;
  EXPECT_TRUE(Render("{{ 1 + 2 }}", limits).text.ok());
  limits.max_steps = r.num_steps - 1;
  ExpectFails("{{ 1 + 2 }}", "too many steps", limits);
}

// An operation on n bytes costs at least n / 32 steps more than on none, wherever it must look at them;
// handing a value on costs nothing.
TEST(ChatTemplateLimitsTest, StepsCostWhatTheyCopy) {
  constexpr size_t kBytes = 320000;
  const auto cost = [](const char* source) {
    const Rendered large = Render(source, {}, kBytes), small = Render(source, {}, 1);
    EXPECT_TRUE(large.text.ok()) << source << large.text.status();
    return large.num_steps - small.num_steps - static_cast<int64_t>(kBytes) / 32;  // less making s
  };
  for (const char* source : {"{{ s }}",
                             "{% set t = s + 'y' %}",
                             "{% set t = s ~ 1 %}",
                             "{% set t = s | upper %}",
                             "{% set t = s | tojson %}",
                             "{% set t = s | urlencode %}",
                             "{% set t = s | e %}",
                             "{% set t = s | indent %}",
                             "{% set t = s | wordcount %}",
                             "{% set t = s * 1 %}",
                             "{% set t = '%s' % s %}",
                             "{% set t = '{}'.format(s) %}",
                             "{% set t = s.splitlines() %}",
                             "{% set t = s.rsplit('y') %}",
                             "{% set t = s.partition('y') %}",
                             "{% set t = s.rfind('y') %}",
                             "{% set t = s.count('y') %}",
                             "{% set t = s.zfill(1) %}",
                             "{% set t = s.isalpha() %}",
                             "{% set t = s.expandtabs() %}",
                             "{% set t = s is lower %}",
                             "{% set t = s | int %}",
                             "{% set t = s | float %}",
                             "{% set t = s | reverse %}",
                             "{% set t = [s] | map('upper') | list %}",
                             "{% set t = s.lower() %}",
                             "{% set t = s | title %}",
                             "{% set t = s | capitalize %}",
                             "{% set t = s.replace('y', 'z') %}",
                             "{% set t = s.split('y') %}",
                             "{% set t = s.split() %}",
                             "{% set t = s.strip('x') %}",
                             "{% set t = s.lstrip('x') %}",
                             "{% set t = (s + ' ') | trim %}",
                             "{% set t = 'xy' in s %}",
                             "{% set t = s in 'y' %}",
                             "{% set t = s < s %}",
                             "{% set t = s == s %}",

                             "{% set t = s | length %}",
                             "{% set t = s[1] %}",
                             "{% set t = s[-1] %}",
                             "{% set t = s[:1] %}",
                             "{% set t = s[::2] %}",
                             "{% set t = [s, 1] | join %}",
                             "{% set t = [s] | string %}",

                             "{% set t = 'y'.replace('y', s) %}",
                             "{% set t = 'x'.strip(s) %}",
                             "{% set t = 'x'.startswith(s) %}"}) {
    EXPECT_GE(cost(source), kBytes / 32 - 1) << source;
  }
  for (const char* source :
       {"{% set t = s %}", "{% set t = [s, s] %}", "{% set t = {'a': s}.a %}",
        "{% for t in [s, s] %}{% endfor %}", "{% set t = [s] + [s] %}", "{% set t = s | d(1) %}",
        "{% set t = s if s else 1 %}", "{% set t = s is string %}", "{% set t = [s][0:1] %}"}) {
    EXPECT_LE(cost(source), 1) << source;
  }
}

// Searching is linear, whatever is searched for: these would take hours otherwise.
TEST(ChatTemplateLimitsTest, HostileSearches) {
  const std::string half =
      "{% set ns = namespace(v='x') %}{% for i in range(20) %}{% set ns.v = ns.v + ns.v %}{% endfor %}"
      "{% set n = ns.v[:500000] ~ 'y' %}";  // v: 2^20 x, n: half as many and a y
  EXPECT_EQ(*Render(half + "{{ n in ns.v }}").text, "False");
  EXPECT_EQ(*Render(half + "{{ ns.v.replace(n, 'z') == ns.v }}").text, "True");
  EXPECT_EQ(*Render(half + "{{ ns.v.split(n) | length }}").text, "1");
  EXPECT_EQ(*Render(half + "{{ ns.v.strip('abcdefgh' ~ n) | length }}").text, "0");
}

TEST(ChatTemplateLimitsTest, Errors) {
  ExpectFails("{{ raise_exception(s) }}", "xxx", {}, 100000);
  ExpectFails("{{ nothing[s] }}", "undefined", {}, 400);
  // Cut between characters.
  const Rendered r = Render("{{ raise_exception('" + Repeat("ä", 1000) + "') }}");
  EXPECT_EQ(std::string(r.text.status().message()), "the chat template says: " + Repeat("ä", 250));
}

TEST(ChatTemplateLimitsTest, CancelEndsIt) {
  auto chat = ChatTemplate::FromSource(
      "{% for a in range(1000) %}{% for b in range(100) %}{% endfor %}{% endfor %}", "", "");
  ASSERT_TRUE(chat.ok());
  std::atomic<bool> gone = true;
  EXPECT_EQ((*chat)->Render({{{"user", "Hi"}}}, &gone).status().code(), absl::StatusCode::kCancelled);
  gone = false;
  EXPECT_TRUE((*chat)->Render({{{"user", "Hi"}}}, &gone).ok());
  // While it runs, within a thousand steps.
  Budget budget({}, &gone);
  while (budget.num_steps() < 50000) ASSERT_TRUE(budget.Step(7));
  gone = true;
  const int64_t at = budget.num_steps();
  while (budget.Step()) ASSERT_LE(budget.num_steps(), at + 1000);
  EXPECT_EQ(budget.status().code(), absl::StatusCode::kCancelled);
}

// What the longest chats that are taken need stays far within the limits.
TEST(ChatTemplateLimitsTest, LongChatsFit) {
  auto chat = ChatTemplate::FromSource(
      "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ "
      "raise_exception('no') }}"
      "{% endif %}{{ '<|' + m['role'] + '|>' + m['content'] | trim + messages[0]['role'] }}"
      "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{% endfor %}",
      "", "");
  ASSERT_TRUE(chat.ok());
  Chat long_chat;
  std::vector<ChatMessage>& messages = long_chat.messages;
  for (int i = 0; i < 1024; ++i)
    messages.push_back({i % 2 == 0 ? "user" : "assistant", std::string(4096, 'x')});
  const auto text = (*chat)->Render(long_chat);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_GT(text->size(), 4u << 20);
  messages.resize(1);
  messages[0].content.assign(4 << 20, 'x');
  EXPECT_TRUE((*chat)->Render(long_chat).ok());
}

}  // namespace
}  // namespace sessa
