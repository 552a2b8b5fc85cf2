// Where the parser is among a template's tokens, the first error, and how deep it has recursed.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/jinja/lexer.h"

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
  void Expect(Token::Kind kind, const char* what) {
    if (Peek().kind != kind) return Fail(absl::StrCat("expected ", what, ", got ", Described()));
    Next();
  }
  void ExpectSymbol(const char* symbol) {
    if (!TakeSymbol(symbol)) Fail(absl::StrCat("expected '", symbol, "', got ", Described()));
  }
  std::string TakeIdentifier() {
    if (Peek().kind != Token::Kind::kName) Fail(absl::StrCat("expected a name, got ", Described()));
    return Next().text;
  }
  // The token, as an error calls it.
  std::string Described() const {
    switch (Peek().kind) {
      case Token::Kind::kText: return "text";
      case Token::Kind::kOutputBegin: return "{{";
      case Token::Kind::kOutputEnd: return "}}";
      case Token::Kind::kBlockBegin: return "{%";
      case Token::Kind::kBlockEnd: return "%}";
      case Token::Kind::kEnd: return "the template's end";
      default: return absl::StrCat("'", Peek().text, "'");
    }
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
