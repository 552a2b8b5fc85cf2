#define PCRE2_CODE_UNIT_WIDTH 8
#include "server/tokenizer/regex.h"

#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/characters.h"
#include "server/tokenizer/json_fields.h"

namespace sessa {
namespace {

constexpr uint32_t kMatchLimit = 20'000'000;  // PCRE2's internal match() calls for one match

std::string Message(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// White space as Oniguruma and Rust know it (property White_Space). PCRE2's own \s has U+180E besides.
constexpr std::string_view kSpace =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"
    "3000}";
// Their \w has marks, and of numbers only digits; Oniguruma's, outside of a class, also what Latin-1 has of
// others.
constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr std::string_view kLatinNumbers = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

bool Compiles(const std::string& source) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

// A pattern in PCRE2's words where it means other things: \s, \w, [:punct:], [:alpha:] and, outside of a
// class, \S and \W; and \p{Han}, which for PCRE2 has what the script shares with others.
std::string Translate(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  const auto add_class = [&](char name, bool negated) {
    if (!in_class) out += negated ? "[^" : "[";
    out += name == 's' ? kSpace : kWord;
    if (!in_class) absl::StrAppend(&out, name == 'w' ? std::string(kLatinNumbers) : "", "]");
  };
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    if (in_class && rest.starts_with("[:punct:]")) {
      out += "\\p{P}\\p{S}";
      i += 8;
    } else if (in_class && rest.starts_with("[:alpha:]")) {
      out += "\\p{Alphabetic}";
      i += 8;
    } else if (in_class && rest.starts_with("[:") && rest.find(":]") != rest.npos) {
      out += rest.substr(0, rest.find(":]") + 2);
      i += rest.find(":]") + 1;
    } else if (rest.size() > 1 && rest[0] == '\\') {
      const char next = pattern[++i];
      const size_t close = rest.find('}');
      if (next == 's' || next == 'w') {
        add_class(next, false);
      } else if ((next == 'S' || next == 'W') && !in_class) {
        add_class(next == 'S' ? 's' : 'w', true);
      } else if ((next == 'p' || next == 'P') && close != rest.npos && close > 5 && rest[2] == '{' &&
                 Compiles(absl::StrCat("\\p{sc:", std::string(rest.substr(3, close - 3)), "}"))) {
        absl::StrAppend(&out, "\\", std::string(1, next), "{sc:");  // the name follows
        ++i;
      } else {
        out += {'\\', next};
      }
    } else {
      if (rest[0] == '[') in_class = true;
      if (rest[0] == ']') in_class = false;
      out += rest[0];
    }
  }
  return out;
}

}  // namespace

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  const std::string source = Translate(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression: ", Message(error), " at offset ", offset));
  }
  return Regex(std::shared_ptr<const pcre2_code>(
                   code, [](const pcre2_code* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); }),
               "");
}

absl::StatusOr<Regex> Regex::OfPattern(const boost::json::value& part, const std::string& where) {
  JsonFields fields(part, where);
  const boost::json::value none, *of_pattern = fields.Find("pattern");
  JsonFields pattern(of_pattern != nullptr ? *of_pattern : none, where + ".pattern");
  const bool is_literal = pattern.Find("String") != nullptr;
  std::string source = pattern.String(is_literal ? "String" : "Regex");
  if (source.empty()) pattern.Fail("", "must not be empty");
  if (!pattern.status().ok()) return pattern.status();
  if (is_literal) return Literal(std::move(source));
  absl::StatusOr<Regex> regex = Compile(source);
  if (regex.ok()) return regex;
  return absl::InvalidArgumentError(absl::StrCat(where, ".pattern: ", regex.status().message()));
}

absl::StatusOr<std::string> Regex::ReplaceAll(std::string_view text, std::string_view content) const {
  auto matches = FindAll(text);
  if (!matches.ok()) return matches.status();
  std::string out;
  size_t at = 0;
  for (const auto& [begin, end] : *matches) {
    out.append(text, at, begin - at);
    out.append(content);
    at = end;
  }
  out.append(text, at);
  return out;
}

absl::StatusOr<std::vector<std::pair<size_t, size_t>>> Regex::FindAll(std::string_view text) const {
  std::vector<std::pair<size_t, size_t>> matches;
  if (code_ == nullptr) {
    for (size_t at = 0; (at = text.find(literal_, at)) != text.npos; at += literal_.size())
      matches.emplace_back(at, at + literal_.size());
    return matches;
  }
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(code_.get(), nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  const std::string older = WithoutNewCharacters(text);
  const auto subject = reinterpret_cast<PCRE2_SPTR>(older.data());
  for (size_t at = 0; at <= text.size();) {
    const int n =
        pcre2_match(code_.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (n == PCRE2_ERROR_NOMATCH) break;
    if (n < 0) return absl::InvalidArgumentError(absl::StrCat("regular expression: ", Message(n)));
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
    if (span[1] > span[0]) {
      matches.emplace_back(span[0], span[1]);
      at = span[1];
    } else {  // empty: go on behind the next character
      for (at = span[1] + 1; at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;) ++at;
    }
  }
  return matches;
}

}  // namespace sessa
