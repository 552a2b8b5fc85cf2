#include "server/tokenizer/jinja_lexer.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"

namespace sessa::jinja {
namespace {

constexpr std::string_view kSpace = " \t\r\n\v\f";

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {
    // Jinja leaves out one newline at the template's end.
    if (source_.ends_with('\n')) source_.remove_suffix(1);
  }

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
      status_ =
          absl::InvalidArgumentError(absl::StrCat("chat template, line ", line_, ": ", std::string(what)));
  }
  void Advance(size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + at_ + n, '\n'));
    at_ += n;
  }

  // Up to the next tag, and the tag.
  void Text() {
    size_t tag = at_;
    while (tag < source_.size() &&
           !(source_[tag] == '{' && tag + 1 < source_.size() &&
             std::string_view("{%#").find(source_[tag + 1]) != std::string_view::npos)) {
      ++tag;
    }
    std::string_view text = source_.substr(at_, tag - at_);
    const char mark = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const bool block = tag < source_.size() && source_[tag + 1] != '{';
    if (trim_all_) {
      text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    } else if (trim_newline_) {
      if (text.starts_with("\r\n"))
        text.remove_prefix(2);
      else if (text.starts_with('\n'))
        text.remove_prefix(1);
    }
    if (tag < source_.size() && mark == '-') {
      text = text.substr(0, text.find_last_not_of(kSpace) + 1);
    } else if (block && mark != '+') {  // lstrip_blocks: blanks from the line's beginning
      const size_t last = text.find_last_not_of(" \t");
      const bool line_begins = last == std::string_view::npos
                                   ? (text.size() == tag - at_ ? at_ == 0 || source_[at_ - 1] == '\n' : true)
                                   : text[last] == '\n';
      if (line_begins) text = text.substr(0, last + 1);
    }
    if (!text.empty()) Emit(Token::Kind::kText, std::string(text));
    Advance(tag - at_);
    trim_all_ = trim_newline_ = false;
    if (at_ >= source_.size()) return;
    const char kind = Peek(1);
    Advance(Peek(2) == '-' || Peek(2) == '+' ? 3 : 2);
    if (kind == '#') return Comment();
    Emit(kind == '%' ? Token::Kind::kBlockBegin : Token::Kind::kOutputBegin, "");
    Tag(kind == '%' ? '%' : '}');
  }

  void Comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) return Fail("a comment has no end");
    trim_all_ = end > at_ && source_[end - 1] == '-';
    trim_newline_ = true;
    Advance(end + 2 - at_);
  }

  void Tag(char closer) {
    while (status_.ok()) {
      while (std::isspace(static_cast<unsigned char>(Peek()))) Advance(1);
      if (at_ >= source_.size()) return Fail("a tag has no end");
      const bool dash = Peek() == '-' && Peek(1) == closer && Peek(2) == '}';
      if (dash || (Peek() == closer && Peek(1) == '}' && (closer == '%' || braces_ == 0))) {
        Emit(closer == '%' ? Token::Kind::kBlockEnd : Token::Kind::kOutputEnd, "");
        trim_all_ = dash;
        trim_newline_ = closer == '%';
        Advance(dash ? 3 : 2);
        return;
      }
      TagToken();
    }
  }

  void TagToken() {
    const unsigned char c = static_cast<unsigned char>(Peek());
    size_t n = 1;
    if (std::isalpha(c) || c == '_') {
      while (std::isalnum(static_cast<unsigned char>(Peek(n))) || Peek(n) == '_') ++n;
      Emit(Token::Kind::kName, std::string(source_.substr(at_, n)));
    } else if (std::isdigit(c)) {
      while (std::isdigit(static_cast<unsigned char>(Peek(n)))) ++n;
      const bool real = Peek(n) == '.' && std::isdigit(static_cast<unsigned char>(Peek(n + 1)));
      if (real) ++n;
      while (real && std::isdigit(static_cast<unsigned char>(Peek(n)))) ++n;
      Emit(real ? Token::Kind::kFloat : Token::Kind::kInteger, std::string(source_.substr(at_, n)));
    } else if (c == '"' || c == '\'') {
      return String(static_cast<char>(c));
    } else {
      static constexpr std::string_view kPairs[] = {"==", "!=", "<=", ">=", "//", "**"};
      for (std::string_view pair : kPairs) {
        if (source_.substr(at_, 2) == pair) n = 2;
      }
      if (n == 1 &&
          std::string_view("+-*/%~()[]{},.:|=<>").find(static_cast<char>(c)) == std::string_view::npos)
        return Fail("unexpected character");
      if (c == '{') ++braces_;
      if (c == '}' && braces_ > 0) --braces_;
      Emit(Token::Kind::kSymbol, std::string(source_.substr(at_, n)));
    }
    Advance(n);
  }

  void String(char quote) {
    std::string value;
    size_t n = 1;
    for (; Peek(n) != quote; ++n) {
      if (at_ + n >= source_.size()) return Fail("a string has no end");
      char c = Peek(n);
      if (c == '\\') {
        c = Peek(++n);
        if (c == 'n')
          c = '\n';
        else if (c == 't')
          c = '\t';
        else if (c == 'r')
          c = '\r';
        else if (c != '\\' && c != '\'' && c != '"')
          value += '\\';  // as Python: an unknown escape stays
      }
      value += c;
    }
    Emit(Token::Kind::kString, std::move(value));
    Advance(n + 1);
  }

  std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  int braces_ = 0;
  bool trim_all_ = false, trim_newline_ = false;  // what the last tag does to the text after it
  std::vector<Token> tokens_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace sessa::jinja
