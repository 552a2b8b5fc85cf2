// Jinja2's filter urlize: addresses of pages and mail in a text become links. Its rules are regular
// expressions, so they are here too, bounded in what they may try.
#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/jinja/builtins.h"
#include "server/jinja/iterate.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

// Compiled at its first use and kept for good.
class Pattern {
 public:
  explicit Pattern(const char* source) {
    int error = 0;
    size_t where = 0;
    code_ =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source), PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_CASELESS | PCRE2_DOLLAR_ENDONLY, &error, &where, nullptr);
  }
  // Fails the budget when it would take too long to find out.
  bool Matches(std::string_view text, Budget* budget) const {
    constexpr uint32_t kMostSteps = 100000;
    if (!budget->StepBytes(static_cast<int64_t>(text.size()) * 8)) return false;
    pcre2_match_data* const match = pcre2_match_data_create(1, nullptr);
    pcre2_match_context* const context = pcre2_match_context_create(nullptr);
    pcre2_set_match_limit(context, kMostSteps);
    const int found =
        pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, match, context);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
    if (found == PCRE2_ERROR_MATCHLIMIT) budget->Fail("urlize: a word is too much to look at");
    return found >= 0;
  }

 private:
  pcre2_code* code_;
};

bool IsPage(std::string_view word, Budget* budget) {
  static const Pattern* const pattern =
      new Pattern(R"(^(?:(?:https?://|www\.)(?:(?:[\w%-]+\.)+)?(?:[a-z]{2,63}|xn--[\w%]{2,59}))"
                  R"(|(?:[\w%-]{2,63}\.)+(?:com|net|int|edu|gov|org|info|mil))"
                  R"(|https?://(?:\d{1,3}(?:\.\d{1,3}){3}|\[(?:[\da-f]{0,4}:){2}(?:[\da-f]{0,4}:?){1,6}\])))"
                  R"((?::\d{1,5})?(?:[/?#]\S*)?$)");
  return pattern->Matches(word, budget);
}

bool IsMail(std::string_view word, Budget* budget) {
  static const Pattern* const pattern = new Pattern(R"(^\S+@\w[\w.-]*\.\w+$)");
  return pattern->Matches(word, budget);
}

size_t Count(std::string_view text, std::string_view what) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos; at += what.size()) ++count;
  return count;
}

// Takes off the longest run of `marks` at an end of `word`.
std::string_view TakeMarks(std::string_view* word, std::initializer_list<std::string_view> marks,
                           bool front) {
  std::string_view rest = *word;
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view mark : marks) {
      if (!(front ? rest.starts_with(mark) : rest.ends_with(mark))) continue;
      front ? rest.remove_prefix(mark.size()) : rest.remove_suffix(mark.size());
      found = true;
    }
  }
  const size_t taken = word->size() - rest.size();
  const std::string_view marks_there = front ? word->substr(0, taken) : word->substr(rest.size());
  *word = rest;
  return marks_there;
}

struct LinkStyle {
  int64_t most_shown = -1;  // characters; -1: all
  std::string attributes;
  std::vector<std::string> schemes;
};

std::string Link(std::string_view address, std::string_view shown, std::string_view attributes) {
  return absl::StrCat("<a href=\"", View(address), "\"", View(attributes), ">", View(shown), "</a>");
}

void AppendWord(std::string_view word, const LinkStyle& style, Budget* budget, TextBuilder* out) {
  const std::string_view head = TakeMarks(&word, {"(", "<", "&lt;"}, true);
  const std::string_view tail = TakeMarks(&word, {")", ">", ".", ",", "&gt;"}, false);
  size_t taken = 0;  // of the tail, to balance what is open in the word
  for (const auto& [open, close] :
       {std::pair<std::string_view, std::string_view>("(", ")"), {"<", ">"}, {"&lt;", "&gt;"}}) {
    const std::string_view middle(word.data(), word.size() + taken);
    const size_t opened = Count(middle, open);
    if (opened <= Count(middle, close)) continue;
    for (size_t n = std::min(opened, Count(tail.substr(taken), close)); n > 0; --n)
      taken = tail.find(close, taken) + close.size();
  }
  std::string middle(word.data(), word.size() + taken);
  const auto shown = [&](std::string_view text) -> std::string {
    if (style.most_shown < 0 || CountCharacters(text, budget) <= style.most_shown) return std::string(text);
    return absl::StrCat(View(text.substr(0, ByteOf(text, style.most_shown))), "...");
  };
  const std::string_view name = middle;
  if (IsPage(name, budget)) {
    const bool has_scheme = name.starts_with("https://") || name.starts_with("http://");
    middle = Link(absl::StrCat(has_scheme ? "" : "https://", middle), shown(middle), style.attributes);
  } else if (name.starts_with("mailto:") && IsMail(name.substr(7), budget)) {
    middle = Link(middle, name.substr(7), "");
  } else if (name.find('@') != std::string_view::npos && !name.starts_with("www.") &&
             !name.starts_with("@") && name.find(':') == std::string_view::npos && IsMail(name, budget)) {
    middle = Link(absl::StrCat("mailto:", middle), middle, "");
  } else {
    for (const std::string& scheme : style.schemes) {
      if (middle != scheme && std::string_view(middle).starts_with(scheme))
        middle = Link(middle, middle, style.attributes);
    }
  }
  out->Append(head);
  out->Append(middle);
  out->Append(tail.substr(taken));
}

std::string Escaped(std::string_view text, Budget* budget) {
  TextBuilder out(budget);
  AppendEscaped(text, &out);
  return out.Release();
}

// The arguments are trim_url_limit, nofollow, target, rel and extra_schemes.
LinkStyle StyleOf(const Bound& args, Budget* budget) {
  LinkStyle style;
  if (args.has_some(0)) style.most_shown = std::max<int64_t>(0, args.Integer(0, 0));
  std::set<std::string> rel = {"noopener"};
  if (args.Truth(1, false)) rel.insert("nofollow");
  if (args.has_some(3)) {
    for (absl::string_view word :
         absl::StrSplit(args.Text(3), absl::ByAnyChar(" \t\n\r\f\v"), absl::SkipEmpty()))
      rel.insert(std::string(word));
  }
  std::string all;
  for (const std::string& word : rel) absl::StrAppend(&all, all.empty() ? "" : " ", word);
  style.attributes = absl::StrCat(" rel=\"", Escaped(all, budget), "\"");
  if (args.has_some(2) && !args.Text(2).empty())
    absl::StrAppend(&style.attributes, " target=\"", Escaped(args.Text(2), budget), "\"");
  if (!args.has_some(4)) return style;
  static const Pattern* const scheme = new Pattern(R"(^[\w.+-]{2,}:/{0,2}$)");
  const Value schemes = ListOf(args[4], budget);
  for (size_t i = 0; budget->ok() && i < schemes.items()->size(); ++i) {
    const std::string* text = (*schemes.items())[i].text();
    if (text != nullptr && scheme->Matches(*text, budget)) {
      style.schemes.push_back(*text);
    } else if (budget->ok()) {
      budget->Fail(absl::StrCat(View(*Repr((*schemes.items())[i], budget).text()),
                                " is not a valid URI scheme prefix"));
    }
  }
  return style;
}

Value Urlize(const Value& self, const Bound& args, Budget* budget) {
  const LinkStyle style = StyleOf(args, budget);
  const Value plain = Str(self, budget);
  if (!budget->ok()) return {};
  TextBuilder escaped(budget);
  self.is_markup() ? escaped.Append(*plain.text()) : AppendEscaped(*plain.text(), &escaped);
  const Value of = escaped.Finish();
  if (!budget->ok()) return {};
  const std::string_view text = *of.text();
  TextBuilder out(budget);
  for (size_t at = 0; at < text.size() && budget->Step();) {
    size_t end = at, next = at;
    bool is_space = false;
    while (end < text.size()) {
      next = end;
      is_space = IsSpace(NextCharacter(text, &next));
      if (is_space) break;
      end = next;
    }
    if (end > at) AppendWord(text.substr(at, end - at), style, budget, &out);
    if (is_space) out.Append(text.substr(end, next - end));
    at = is_space ? next : end;
  }
  return out.Finish();
}

constexpr Builtin kUrlizeFilters[] = {
    {"urlize", "| trim_url_limit nofollow target rel extra_schemes", Urlize},
};

}  // namespace

BuiltinTable UrlizeFilters() { return {std::begin(kUrlizeFilters), std::end(kUrlizeFilters)}; }

}  // namespace sessa::jinja
