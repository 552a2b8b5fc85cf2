// Jinja2's filters that write or take away markup. What they give is plain text, as nothing is escaped by
// itself.
#include <algorithm>
#include <array>
#include <iterator>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/jinja/builtins.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

// The named characters that HTML knows without a semicolon too: U+00A0 to U+00FF in order, and some more.
constexpr std::string_view kLatin[] = {
    "nbsp",   "iexcl",  "cent",   "pound",  "curren", "yen",    "brvbar", "sect",   "uml",    "copy",
    "ordf",   "laquo",  "not",    "shy",    "reg",    "macr",   "deg",    "plusmn", "sup2",   "sup3",
    "acute",  "micro",  "para",   "middot", "cedil",  "sup1",   "ordm",   "raquo",  "frac14", "frac12",
    "frac34", "iquest", "Agrave", "Aacute", "Acirc",  "Atilde", "Auml",   "Aring",  "AElig",  "Ccedil",
    "Egrave", "Eacute", "Ecirc",  "Euml",   "Igrave", "Iacute", "Icirc",  "Iuml",   "ETH",    "Ntilde",
    "Ograve", "Oacute", "Ocirc",  "Otilde", "Ouml",   "times",  "Oslash", "Ugrave", "Uacute", "Ucirc",
    "Uuml",   "Yacute", "THORN",  "szlig",  "agrave", "aacute", "acirc",  "atilde", "auml",   "aring",
    "aelig",  "ccedil", "egrave", "eacute", "ecirc",  "euml",   "igrave", "iacute", "icirc",  "iuml",
    "eth",    "ntilde", "ograve", "oacute", "ocirc",  "otilde", "ouml",   "divide", "oslash", "ugrave",
    "uacute", "ucirc",  "uuml",   "yacute", "thorn",  "yuml"};
struct NamedCharacter {
  std::string_view name, text;
};
constexpr NamedCharacter kOthers[] = {{"AMP", "&"}, {"COPY", "©"}, {"GT", ">"}, {"LT", "<"}, {"QUOT", "\""},
                                      {"REG", "®"}, {"amp", "&"},  {"gt", ">"}, {"lt", "<"}, {"quot", "\""}};

std::optional<std::string> TextOfName(std::string_view name) {
  if (const auto* at = std::find(std::begin(kLatin), std::end(kLatin), name); at != std::end(kLatin)) {
    std::string text;
    AppendCharacter(static_cast<char32_t>(0xa0 + (at - std::begin(kLatin))), &text);
    return text;
  }
  for (const NamedCharacter& other : kOthers) {
    if (other.name == name) return std::string(other.text);
  }
  return std::nullopt;
}

// The character of a number between &# and ;, as HTML reads it: what no document may have becomes another or
// none.
std::string TextOfNumber(std::string_view digits, int base) {
  uint32_t number = 0;
  for (const char c : digits) {
    const int digit = absl::ascii_isdigit(c) ? c - '0' : absl::ascii_tolower(c) - 'a' + 10;
    number = std::min<uint32_t>(0x110000, number * base + digit);
  }
  // Windows' characters, which pages have meant by these.
  static constexpr char32_t kWindows[32] = {0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021,
                                            0x2c6,  0x2030, 0x160,  0x2039, 0x152,  0x8d,   0x17d,  0x8f,
                                            0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                            0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};
  char32_t c = number;
  if (number >= 0x80 && number < 0xa0) {
    c = kWindows[number - 0x80];
  } else if (number == 0 || number > 0x10ffff || (number >= 0xd800 && number < 0xe000)) {
    c = 0xfffd;
  } else if (number == 0x7f || (number >= 0xfdd0 && number <= 0xfdef) || (number & 0xfffe) == 0xfffe ||
             (number < 0x20 && number != '\t' && number != '\n' && number != '\f' && number != '\r')) {
    return "";
  }
  std::string text;
  AppendCharacter(c, &text);
  return text;
}

// Appends what the reference at the & is; the bytes of it.
size_t AppendReference(std::string_view text, Budget* budget, TextBuilder* out) {
  constexpr size_t kMostCharacters = 32;
  const auto digits_end = [text](size_t at, auto is_digit) {
    while (at < text.size() && is_digit(text[at])) ++at;
    return at;
  };
  if (text.substr(1, 1) == "#") {
    const bool hex = text.size() > 2 && (text[2] == 'x' || text[2] == 'X');
    const size_t begin = hex ? 3 : 2;
    const size_t end = hex ? digits_end(begin, [](char c) { return absl::ascii_isxdigit(c); })
                           : digits_end(begin, [](char c) { return absl::ascii_isdigit(c); });
    if (end > begin) {
      out->Append(TextOfNumber(text.substr(begin, end - begin), hex ? 16 : 10));
      return end + (text.substr(end, 1) == ";" ? 1 : 0);
    }
    out->Append("&");
    return 1;
  }
  size_t end = 1;
  for (size_t n = 0; n < kMostCharacters && end < text.size(); ++n) {
    if (std::string_view("\t\n\f <&#;").find(text[end]) != std::string_view::npos) break;
    NextCharacter(text, &end);
  }
  const std::string_view name = text.substr(1, end - 1);
  if (text.substr(end, 1) == ";") {
    if (const auto known = name == "apos" ? std::optional<std::string>("'") : TextOfName(name)) {
      out->Append(*known);
      return end + 1;
    }
    if (!name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return absl::ascii_isalnum(c); }))
      budget->Fail(absl::StrCat("striptags does not know the character &", View(name), ";"));
  }
  for (size_t size = name.size(); size > 1; --size) {
    const auto known = TextOfName(name.substr(0, size));
    if (!known.has_value()) continue;
    out->Append(*known);
    return 1 + size;
  }
  out->Append("&");
  return 1;
}

// Without tags and comments, white space as single spaces, and then references as what they stand for.
Value StripTags(const Value& self, const Bound&, Budget* budget) {
  const Value of = Str(self, budget);
  if (!budget->ok() || !budget->StepBytes(static_cast<int64_t>(of.text()->size()) * 4)) return {};
  const std::string_view text = *of.text();
  TextBuilder kept(budget);
  size_t at = 0;
  for (size_t begin; (begin = text.find('<', at)) != std::string_view::npos;) {
    const bool comment = text.substr(begin).starts_with("<!--");
    const size_t end = comment ? text.find("-->", begin + 4) : text.find('>', begin);
    if (end == std::string_view::npos) break;
    kept.Append(text.substr(at, begin - at));
    at = end + (comment ? 3 : 1);
  }
  kept.Append(text.substr(at));
  const Value plain = kept.Finish();
  if (!budget->ok()) return {};
  TextBuilder spaced(budget);
  const std::string_view words = *plain.text();
  bool any = false;
  for (size_t next = 0; next < words.size();) {
    const size_t begin = next;
    while (next < words.size()) {
      size_t after = next;
      if (IsSpace(NextCharacter(words, &after))) break;
      next = after;
    }
    if (next > begin) {
      if (any) spaced.Append(" ");
      any = true;
      spaced.Append(words.substr(begin, next - begin));
    }
    if (next < words.size()) NextCharacter(words, &next);
  }
  const Value line = spaced.Finish();
  if (!budget->ok()) return {};
  TextBuilder out(budget);
  const std::string_view escaped = *line.text();
  for (size_t next = 0; next < escaped.size() && budget->ok();) {
    const size_t reference = std::min(escaped.find('&', next), escaped.size());
    out.Append(escaped.substr(next, reference - next));
    next = reference;
    if (next < escaped.size()) next += AppendReference(escaped.substr(next), budget, &out);
  }
  return out.Finish();
}

Value XmlAttr(const Value& self, const Bound& args, Budget* budget) {
  if (self.dict() == nullptr) {
    budget->Fail(self.is_defined() ? "xmlattr takes a mapping" : self.UndefinedMessage());
    return {};
  }
  TextBuilder out(budget);
  bool any = false;
  const auto escape = [&](const Value& v) {
    const Value text = Str(v, budget);
    if (!budget->ok()) return;
    v.is_markup() ? out.Append(*text.text()) : AppendEscaped(*text.text(), &out);
  };
  for (const auto& [key, value] : *self.dict()) {
    if (!budget->Step()) return {};
    if (value.is_none() || !value.is_defined()) continue;
    if (key.text() == nullptr || key.text()->find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      budget->Fail(absl::StrCat("Invalid character in attribute name: ", View(*Repr(key, budget).text())));
      return {};
    }
    if (any || args.Truth(0, true)) out.Append(" ");
    any = true;
    escape(key);
    out.Append("=\"");
    escape(value);
    out.Append("\"");
  }
  return out.Finish();
}

constexpr Builtin kMarkupFilters[] = {
    {"striptags", "", StripTags},
    {"xmlattr", "| autospace", XmlAttr},
};

}  // namespace

BuiltinTable MarkupFilters() { return {std::begin(kMarkupFilters), std::end(kMarkupFilters)}; }

}  // namespace sessa::jinja
