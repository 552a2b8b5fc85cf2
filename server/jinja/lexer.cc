#include "server/jinja/lexer.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// All line ends become \n, and one at the template's end is left out.
std::string Normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    out += source[i] == '\r' ? '\n' : source[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : copy_(Normalized(source)), source_(copy_) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size() && status_.ok()) Text();
    if (!status_.ok()) return status_;
    Emit(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  char Peek(size_t ahead = 0) const { return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0'; }
  void Emit(Token::Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void Fail(std::string_view what) {
    if (status_.ok())
      status_ = absl::InvalidArgumentError(absl::StrCat("chat template, line ", line_, ": ", View(what)));
  }
  void Advance(size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + at_ + n, '\n'));
    at_ += n;
  }
  size_t SpaceFrom(size_t at) const {
    size_t end = at;
    while (end < source_.size()) {
      size_t next = end;
      if (!IsSpace(NextCharacter(source_, &next))) break;
      end = next;
    }
    return end - at;
  }

  // How much of a text is left before a tag. Only tags that are no output strip a line's blanks.
  std::string_view Stripped(std::string_view text, char mark, bool output) const {
    const auto is_space = [](std::string_view t) {
      for (size_t at = 0; at < t.size();) {
        if (!IsSpace(NextCharacter(t, &at))) return false;
      }
      return true;
    };
    if (mark == '-') {
      while (!text.empty() && IsSpace(LastCharacter(text))) {
        do text.remove_suffix(1);
        while (!text.empty() && (text.data()[text.size()] & 0xc0) == 0x80);
      }
      return text;
    }
    if (mark == '+' || output) return text;
    const size_t line = text.rfind('\n') + 1;  // 0: there is none
    const bool begins = line > 0 || at_ == 0 || source_[at_ - 1] == '\n';
    return begins && is_space(text.substr(line)) ? text.substr(0, line) : text;
  }

  // Up to the next tag, and the tag.
  void Text() {
    size_t tag = at_;
    while (tag < source_.size() &&
           !(source_[tag] == '{' && tag + 1 < source_.size() &&
             std::string_view("{%#").find(source_[tag + 1]) != std::string_view::npos))
      ++tag;
    const std::string_view text = source_.substr(at_, tag - at_);
    if (tag == source_.size()) {
      if (!text.empty()) Emit(Token::Kind::kText, std::string(text));
      return Advance(text.size());
    }
    const char kind = source_[tag + 1], mark = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const std::string_view kept = Stripped(text, mark, kind == '{');
    if (!kept.empty()) Emit(Token::Kind::kText, std::string(kept));
    Advance(tag - at_);
    Advance(mark == '-' || mark == '+' ? 3 : 2);
    if (kind == '#') return Comment();
    if (kind == '%' && Raw()) return;
    Emit(kind == '%' ? Token::Kind::kBlockBegin : Token::Kind::kOutputBegin, "");
    Tag(kind == '%' ? '%' : '}');
  }

  // Behind a block's end: its mark says what of the text is left out.
  void AfterBlock(char mark) {
    if (mark == '-') return Advance(SpaceFrom(at_));
    if (mark != '+' && Peek() == '\n') Advance(1);
  }

  void Comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) return Fail("Missing end of comment tag");
    const char mark = end > at_ ? source_[end - 1] : '\0';
    Advance(end + 2 - at_);
    AfterBlock(mark);
  }

  // {% raw %} is up to {% endraw %}, whatever is inside.
  bool Raw() {
    const size_t name = at_ + SpaceFrom(at_);
    if (source_.substr(name, 3) != "raw") return false;
    size_t end = name + 3 + SpaceFrom(name + 3);
    const bool dash = source_.substr(end, 3) == "-%}";
    if (!dash && source_.substr(end, 2) != "%}") return false;
    end += dash ? 3 : 2;
    if (dash) end += SpaceFrom(end);
    Advance(end - at_);
    for (size_t tag = at_; (tag = source_.find("{%", tag)) != std::string_view::npos; ++tag) {
      size_t at = tag + 2;
      const char mark = at < source_.size() ? source_[at] : '\0';
      if (mark == '-' || mark == '+') ++at;
      at += SpaceFrom(at);
      if (source_.substr(at, 6) != "endraw") continue;
      at += 6;
      at += SpaceFrom(at);
      const char close = at < source_.size() ? source_[at] : '\0';
      if (close == '-' || close == '+') ++at;
      if (source_.substr(at, 2) != "%}") continue;
      const std::string_view kept = Stripped(source_.substr(at_, tag - at_), mark, false);
      if (!kept.empty()) Emit(Token::Kind::kText, std::string(kept));
      Advance(at + 2 - at_);
      AfterBlock(close);
      return true;
    }
    Fail("Missing end of raw directive");
    return true;
  }

  void Tag(char closer) {
    while (status_.ok()) {
      if (const size_t space = SpaceFrom(at_); space > 0) {
        Advance(space);
        continue;
      }
      if (at_ >= source_.size()) return Fail("a tag has no end");
      const char mark = Peek() == '-' || (Peek() == '+' && closer == '%') ? Peek() : '\0';
      const size_t at = mark != '\0' ? 1 : 0;
      if (brackets_.empty() && Peek(at) == closer && Peek(at + 1) == '}') {
        Emit(closer == '%' ? Token::Kind::kBlockEnd : Token::Kind::kOutputEnd, "");
        Advance(at + 2);
        if (closer == '%' || mark == '-') AfterBlock(mark);
        return;
      }
      TagToken();
    }
  }

  void TagToken() {
    if (Number() || Identifier()) return;
    const char c = Peek();
    if (c == '"' || c == '\'') return String(c);
    static constexpr std::string_view kPairs[] = {"==", "!=", "<=", ">=", "//", "**"};
    size_t n = 1;
    for (std::string_view pair : kPairs) {
      if (source_.substr(at_, 2) == pair) n = 2;
    }
    if (n == 1 && std::string_view("+-*/%~()[]{},.:|=<>;").find(c) == std::string_view::npos)
      return Fail(
          absl::StrCat("unexpected char '", View(source_.substr(at_, CharacterSize(source_, at_))), "'"));
    if (c == '(' || c == '[' || c == '{') brackets_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty() || brackets_.back() != c)
        return Fail(absl::StrCat("unexpected '", std::string(1, c), "'"));
      brackets_.pop_back();
    }
    Emit(Token::Kind::kSymbol, std::string(source_.substr(at_, n)));
    Advance(n);
  }

  // The end of digits from `at`, which may have one _ between each two; `at` when there are none.
  size_t DigitsFrom(size_t at, bool (*is_digit)(char)) const {
    const auto digit = [&](size_t i) { return i < source_.size() && is_digit(source_[i]); };
    if (!digit(at)) return at;
    while (digit(at) || (at < source_.size() && source_[at] == '_' && digit(at + 1))) ++at;
    return at;
  }

  bool Number() {
    if (!IsDigit(Peek())) return false;
    const size_t whole = DigitsFrom(at_, IsDigit);
    size_t end = whole;
    if (end < source_.size() && source_[end] == '.') end = DigitsFrom(end + 1, IsDigit);
    if (end <= whole + 1) end = whole;  // a point without digits is none
    size_t exponent = end;
    if (exponent < source_.size() && (source_[exponent] | 32) == 'e') {
      ++exponent;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
      const size_t last = DigitsFrom(exponent, IsDigit);
      if (last > exponent) end = last;
    }
    const bool after_point = at_ > 0 && source_[at_ - 1] == '.';
    Token::Kind kind = Token::Kind::kFloat;
    if (end == whole || after_point) {
      kind = Token::Kind::kInteger;
      end = IntegerEnd(whole);
    }
    std::string digits(source_.substr(at_, end - at_));
    std::erase(digits, '_');
    Emit(kind, std::move(digits));
    Advance(end - at_);
    return true;
  }

  size_t IntegerEnd(size_t whole) const {
    if (Peek() != '0') return whole;
    const char base = static_cast<char>(Peek(1) | 32);
    bool (*is_digit)(char) = nullptr;
    if (base == 'x') is_digit = [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; };
    if (base == 'o') is_digit = [](char c) { return c >= '0' && c <= '7'; };
    if (base == 'b') is_digit = [](char c) { return c == '0' || c == '1'; };
    if (is_digit != nullptr) {
      const size_t first = at_ + 2 + (Peek(2) == '_' ? 1 : 0);
      if (const size_t end = DigitsFrom(first, is_digit); end > first) return end;
    }
    return DigitsFrom(at_, [](char c) { return c == '0'; });  // 007 is 00 and 7, which no grammar takes
  }

  bool Identifier() {
    size_t end = at_;
    while (end < source_.size()) {
      size_t next = end;
      const char32_t c = NextCharacter(source_, &next);
      const bool part = c < 0x80 ? std::isalnum(static_cast<int>(c)) || c == '_'
                                 : u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_XID_CONTINUE) != 0;
      if (!part) break;
      end = next;
    }
    if (end == at_) return false;
    Emit(Token::Kind::kName, std::string(source_.substr(at_, end - at_)));
    Advance(end - at_);
    return true;
  }

  void String(char quote) {
    size_t n = 1;
    for (; Peek(n) != quote; ++n) {
      if (Peek(n) == '\\') ++n;
      if (at_ + n >= source_.size()) return Fail("a string has no end");
    }
    std::string value;
    if (!Unescape(source_.substr(at_ + 1, n - 1), &value)) return Fail("a string has a bad escape");
    Emit(Token::Kind::kString, std::move(value));
    Advance(n + 1);
  }

  const std::string copy_;
  const std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  std::string brackets_;  // those that close what is open in a tag
  std::vector<Token> tokens_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace sessa::jinja
