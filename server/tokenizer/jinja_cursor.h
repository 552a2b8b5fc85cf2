// Where the parser is among a template's tokens, the first error, and how deep it has recursed.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/jinja_lexer.h"

namespace sessa::jinja {

class TokenCursor {
 protected:
  TokenCursor(std::vector<Token> tokens, int max_depth) : tokens_(std::move(tokens)), max_depth_(max_depth) {}

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  // Past an error everything looks like the end, so that all loops stop.
  const Token& Peek(size_t ahead = 0) const {
    return status_.ok() && at_ + ahead < tokens_.size() ? tokens_[at_ + ahead] : tokens_.back();
  }
  Token Next() {
    Token token = Peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  void Fail(const std::string& what) {
    if (status_.ok())
      status_ =
          absl::InvalidArgumentError(absl::StrCat("chat template, line ", tokens_[at_].line, ": ", what));
  }
  bool TakeSymbol(std::string_view s) { return Peek().Is(Token::Kind::kSymbol, s) && (Next(), true); }
  bool TakeName(std::string_view s) { return Peek().Is(Token::Kind::kName, s) && (Next(), true); }
  void Expect(Token::Kind kind, std::string_view text, const char* what) {
    if (Peek().kind != kind || (!text.empty() && Peek().text != text))
      return Fail(absl::StrCat("expected ", what));
    Next();
  }
  std::string Name() {
    if (Peek().kind != Token::Kind::kName) Fail("expected a name");
    return Next().text;
  }

  struct Nested {  // counts the depth of recursion: a hostile template must not end the stack
    explicit Nested(TokenCursor* c) : cursor(c) {
      if (++c->depth_ > c->max_depth_) c->Fail("nested too deep");
    }
    ~Nested() { --cursor->depth_; }
    TokenCursor* cursor;
  };

 private:
  const std::vector<Token> tokens_;
  const int max_depth_;
  size_t at_ = 0;
  int depth_ = 0;
  absl::Status status_;
};

}  // namespace sessa::jinja
