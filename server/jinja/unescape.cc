// See lexer.h: Python's "unicode-escape", after what is not ASCII was written as escapes itself.
#include <cctype>

#include "absl/strings/str_format.h"
#include "server/jinja/lexer.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

// The number of up to `most` digits of a base from *at on; -1 when there are fewer than `least`.
int64_t Digits(std::string_view text, size_t* at, int base, size_t least, size_t most) {
  int64_t value = 0;
  size_t n = 0;
  for (; n < most && *at < text.size(); ++n, ++*at) {
    const char c = text[*at];
    const int digit = c >= '0' && c <= '9'                           ? c - '0'
                      : std::isxdigit(static_cast<unsigned char>(c)) ? (c | 32) - 'a' + 10
                                                                     : 99;
    if (digit >= base) break;
    value = value * base + digit;
  }
  return n < least ? -1 : value;
}

}  // namespace

bool Unescape(std::string_view literal, std::string* value) {
  static constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeanings = "\\'\"\a\b\f\n\r\t\v";
  for (size_t at = 0; at < literal.size();) {
    if (literal[at] != '\\') {
      *value += literal[at++];
      continue;
    }
    if (++at == literal.size()) return false;
    const char c = literal[at];
    int64_t code = -2;
    if (const size_t known = kLetters.find(c); known != std::string_view::npos) {
      *value += kMeanings[known];
      ++at;
    } else if (c == '\n') {
      ++at;
    } else if (c >= '0' && c <= '7') {
      code = Digits(literal, &at, 8, 1, 3);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t size = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      code = Digits(literal, &++at, 16, size, size);
    } else if (c == 'N') {
      return false;  // names of characters
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      // Python has made \xe9 of it by now, whose backslash the one before it takes.
      const auto character = static_cast<uint32_t>(NextCharacter(literal, &at));
      *value += character < 0x100     ? absl::StrFormat("\\x%02x", character)
                : character < 0x10000 ? absl::StrFormat("\\u%04x", character)
                                      : absl::StrFormat("\\U%08x", character);
    } else {
      *value += '\\';  // an unknown escape stays
    }
    if (code == -2) continue;
    // Half of a surrogate pair is no text, and could not be written anyway.
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    AppendCharacter(static_cast<char32_t>(code), value);
  }
  return true;
}

}  // namespace sessa::jinja
