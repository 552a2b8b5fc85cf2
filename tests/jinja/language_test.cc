// What templates render and what their errors say. differential_test.py compares thousands with Jinja2; here
// are the cases that once went wrong, and errors in our own words.
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/jinja/evaluator.h"
#include "server/jinja/from_json.h"

namespace sessa {
namespace {

absl::StatusOr<std::string> Render(std::string_view source, std::string_view said = "hi") {
  auto parsed = jinja::Parse(source);
  if (!parsed.ok()) return parsed.status();
  jinja::Budget budget;
  const boost::json::value messages = {
      {{"role", "user"}, {"content", boost::json::string_view(said.data(), said.size())}}};
  auto text = jinja::Render(**parsed, {{"messages", jinja::FromJson(messages, &budget)}}, &budget);
  EXPECT_EQ(budget.num_bytes(), 0) << source;
  return text;
}

TEST(JinjaLanguageTest, Renders) {
  const std::pair<const char*, const char*> cases[] = {
      {"{% if false %}{% for k, v in {'a': 1}.items() %}{{ k }}{% endfor %}{% endif %}{{ messages[0].content "
       "}}",
       "hi"},
      {"{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;"},
      {"{{ 'x' if 'user' in ('user', 'tool') else 'y' }}", "x"},
      {"{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(messages[0].content) }}", "<hi>"},
      {"{{ messages | selectattr('role','equalto','user') | list | length }}", "1"},
      {"{{ messages | tojson }}", R"([{"role": "user", "content": "hi"}])"},
      {"{{ {'b': 'ü<', 'a': [1.0, none]} | tojson(indent=2, sort_keys=true) }}",
       "{\n  \"a\": [\n    1.0,\n    null\n  ],\n  \"b\": \"ü<\"\n}"},
      {"{{ 7 / 2 }} {{ 6 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1e16 }} {{ 0.1 + "
       "0.2 }}",
       "3.5 3.0 -4 2 1024 0.5 1e+16 0.30000000000000004"},
      {"{{ 1 < 2 < 3 }} {{ 'ab' * 2 }} {{ (1, 'a') }} {{ 'a' ~ 1 ~ none }}", "True abab (1, 'a') a1None"},
      {"{% set ns = namespace(n=0) %}{% for i in range(5) if i is odd %}{% set ns.n = ns.n + i %}{% endfor "
       "%}{{ ns.n }}",
       "4"},
      {"{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% else %}none{% endfor %}", "1"},
      {"{% for n in [[1, [2]], 3] recursive %}{{ loop(n) if n is sequence else n }}@{{ loop.depth }};{% "
       "endfor %}",
       "1@2;2@3;@2;@1;3@1;"},
      {"{% macro f() %}<{{ caller(1) }}>{% endmacro %}{% call(x) f() %}{{ x }}{% endcall %}", "<1>"},
      {"a\r\n{%- if true %}\r\n  b\r\n  {% endif +%}\r\nc\r\n", "a  b\n\nc"},
      {"{% raw %}{{ x }}{% endraw %}{# gone #}", "{{ x }}"},
      {"{% set x %}<{{ messages[0].content }}>{% endset %}{{ x | upper }}", "<HI>"},
      {"{% filter upper %}{{ messages[0].content }}{% endfilter %}", "HI"},
      {"{{ '{:>5}|{:.2f}'.format('a', 1) }} {{ '%s=%03d' % ('n', 7) }}", "    a|1.00 n=007"},
      {"{% generation %}{{ messages[0].content }}{% endgeneration %}", "hi"},
      {"{{ undefined_one }}{{ undefined_one is defined }}", "False"},
      {"{{ {'b': 'x' * 40, 'a': ['y' * 20, 'z' * 20]} | pprint }}",
       "{'a': ['yyyyyyyyyyyyyyyyyyyy', 'zzzzzzzzzzzzzzzzzzzz'],\n"
       " 'b': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'}"},
      {"{{ 'one well-known word' | wordwrap(9) }}", "one well-\nknown\nword"},
      {"{{ '<p>a <!-- > --> &lt;b&gt;&nbsp;&#233;&#x80;</p>' | striptags }}", "a <b>\u00a0é€"},
      {"{{ {'class': 'a\"b', 'id': none, 'n': 1} | xmlattr }}", " class=\"a&#34;b\" n=\"1\""},
      {"{{ '(www.a.org/x).' | urlize }}",
       "(<a href=\"https://www.a.org/x\" rel=\"noopener\">www.a.org/x</a>)."},
      {"{{ ['only'] | random }}{{ [] | random is defined }}", "onlyFalse"},
      // A name that a block sets is its own from its beginning, for the blocks inside of it too.
      {"{% for i in [1, 2] %}{% for j in [1] %}[{{ messages }}]{% endfor %}{% set messages = i %}{% endfor "
       "%}",
       "[][]"},
      {"{% macro f() %}[{{ messages }}]{% endmacro %}{{ f() }}{% set messages = 1 %}{{ f() }}", "[][1]"},
      {"{% if messages %}{% set messages = 2 %}{% endif %}{{ messages }}", "2"},
      {"{% if false %}{% set messages = 2 %}{% endif %}{{ messages | length }}", "1"},
  };
  for (const auto& [source, expected] : cases) {
    const auto text = Render(source);
    ASSERT_TRUE(text.ok()) << source << ": " << text.status();
    EXPECT_EQ(*text, expected) << source;
  }
  EXPECT_EQ(*Render("{{ messages[0].content.split('</think>', 1)[1] }}", "a</think>b</think>c"),
            "b</think>c");
  EXPECT_EQ(*Render("[{{ messages[0].content | trim }}]", "\u3000hi\u00a0"), "[hi]");
}

TEST(JinjaLanguageTest, StrftimeNowIsToday) {
  const auto today = [] {
    return absl::FormatTime("Today is %Y-%m-%d.", absl::Now(), absl::LocalTimeZone());
  };
  const std::string before = today();
  const auto text = Render("Today is {{ strftime_now('%Y-%m-%d') }}.");
  EXPECT_TRUE(*text == before || *text == today()) << *text;
}

TEST(JinjaLanguageTest, Errors) {
  const std::pair<const char*, const char*> cases[] = {
      {"{% for x in %}", "line 1: Expected an expression"},
      {"a\n{{ 1 + }}", "line 2"},
      {"\n\n{% if x %}", "line 3: unexpected end of template, expected 'endif'"},
      {"{% endif %}", "unknown tag 'endif'"},
      {"{% for x in [] %}{% endif %}", "Expected 'endfor' or 'else'"},
      {"{% include 'x' %}", "no other templates"},
      {"{% extends 'x' %}", "'extends' is not supported"},
      {"{{ 'abc }}", "a string has no end"},
      {"{# abc", "end of comment"},
      {"{% raw %}{{", "end of raw"},
      {"{{ abc", "a tag has no end"},
      {"{{ (1] }}", "unexpected ']'"},
      {"{{ a.b.c }}", "'a' is undefined"},
      {"{{ messages[0]['no'].c }}", "no attribute 'no'"},
      {"{{ messages | nothing }}", "No filter named 'nothing'"},
      {"{{ messages is nothing }}", "No test named 'nothing'"},
      {"{{ 'a'.encode() }}", "no attribute 'encode'"},
      {"{{ messages.append(1) }}", "undefined"},
      {"{{ open('x') }}", "'open' is undefined"},
      {"{{ 1 // 0 }}", "by zero"},
      {"{{ 9223372036854775807 + 1 }}", "more than 64 bits"},
      {"{{ 99999999999999999999 }}", "more than 64 bits"},
      {"{{ 1 + 'a' }}", "unsupported operand type(s) for +: 'int' and 'str'"},
      {"{{ 1 < 'a' }}", "not supported between instances of 'int' and 'str'"},
      {"{{ raise_exception('no ' + 'way') }}", "the chat template says: no way"},
      {"{% for c in 5 %}{% endfor %}", "'int' object is not iterable"},
      {"{% for a, b in [[1]] %}{% endfor %}", "cannot unpack 1 values into 2 names"},
      {"{% set messages.y = 1 %}", "non-namespace"},
      {"{% set ns = namespace(_x=1) %}", "cannot begin with _"},
      {"{{ 'a'[::0] }}", "step cannot be zero"},
      {"{{ $ }}", "unexpected char '$'"},
      {"{% break %}", "outside loop"},
      {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "takes not more than 1 argument"},
      {"{% macro f(a) %}{% endmacro %}{{ f(b=1) }}", "no keyword argument 'b'"},
      {"{{ 'a'.split(x=1) }}", "unexpected keyword"},
      {"{{ 'a' | replace('b') }}", "misses its argument 'new'"},
      {"{{ range(100001) }}", "range too big"},
      {"{{ namespace() | tojson }}", "not JSON serializable"},
      {"{{ [1] | map('nothing') | list }}", "No filter named 'nothing'"},
      {"{{ '\\ud800' }}", "bad escape"},
      {"{{ [1, 2] | random }}", "the same each time"},
      {"{{ '&hellip; ' | striptags }}", "does not know the character &hellip;"},
      {"{{ {'a b': 1} | xmlattr }}", "Invalid character in attribute name: 'a b'"},
      {"{{ 'a' | wordwrap(0) }}", "invalid width 0"},
      {"{{ 'a' | urlize(extra_schemes=['x']) }}", "not a valid URI scheme"},
  };
  for (const auto& [source, expected] : cases) {
    const auto text = Render(source);
    ASSERT_FALSE(text.ok()) << source << " -> " << *text;
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(text.status().message().find(expected), std::string::npos) << source << ": " << text.status();
  }
}

}  // namespace
}  // namespace sessa
