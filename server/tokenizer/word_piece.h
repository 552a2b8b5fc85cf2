// WordPiece (Schuster and Nakajima 2012, as BERT has it): the longest token that a word begins with, then the
// longest that the rest begins with; and WordLevel, where a word is a token or unknown. Constant,
// thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/tokenizer/token_model.h"

namespace sessa {

class WordPiece : public TokenModel {
 public:
  // `unknown`: what a word becomes that has other parts than tokens, or more than `max_characters`. `prefix`:
  // before tokens inside a word.
  WordPiece(Vocabulary vocabulary, std::optional<int32_t> unknown, std::string prefix, size_t max_characters);
  // O(length of the word * length of the longest token).
  absl::Status Encode(std::string_view word, std::vector<int32_t>* ids) const override;
  bool IsLossless(bool) const override { return false; }  // a word of any length may be unknown

 private:
  const std::optional<int32_t> unknown_;
  const std::string prefix_;
  const size_t max_characters_;
  size_t longest_ = 0;  // token, in bytes
};

class WordLevel : public TokenModel {
 public:
  WordLevel(Vocabulary vocabulary, std::optional<int32_t> unknown)
      : TokenModel(std::move(vocabulary)), unknown_(unknown) {}
  absl::Status Encode(std::string_view word, std::vector<int32_t>* ids) const override;
  bool IsLossless(bool) const override { return false; }

 private:
  const std::optional<int32_t> unknown_;
};

}  // namespace sessa
