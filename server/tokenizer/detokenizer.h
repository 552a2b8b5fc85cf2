// Token ids to text, one at a time. All pieces together are Decode of all ids, byte for byte; every piece is
// well-formed UTF-8: only a character that is not complete yet is held back, and a space that may be the
// last. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "server/tokenizer/tokenizer.h"

namespace sessa {

class Detokenizer {
 public:
  // `tokenizer` outlives this. at_start false: the text goes on from other text, as an answer from its
  // prompt, and keeps the space before its first word.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special, bool at_start = true)
      : tokenizer_(tokenizer), skip_special_(skip_special), text_(&tokenizer->decoder(), at_start) {}

  std::string Push(int32_t id) {
    const TokenText* token = tokenizer_->TextOf(id);
    if (token == nullptr || (skip_special_ && tokenizer_->IsSpecial(id))) return "";
    return text_.Push(*token);
  }

  // What is held back: an incomplete character becomes U+FFFD.
  std::string Flush() { return text_.Flush(); }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  TextDecoder text_;
};

}  // namespace sessa
