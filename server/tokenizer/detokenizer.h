// Token ids to text, one at a time. All pieces together are Decode of all ids, byte for byte; every piece is
// well-formed UTF-8: only a character that is not complete yet is held back. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "server/tokenizer/tokenizer.h"
#include "server/tokenizer/utf8.h"

namespace sessa {

class Detokenizer {
 public:
  // `tokenizer` outlives this.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  std::string Push(int32_t id) {
    if (skip_special_ && tokenizer_->IsSpecial(id)) return "";
    pending_ += tokenizer_->TokenBytes(id);
    const size_t complete = CompleteUtf8(pending_);
    std::string text = RepairUtf8(std::string_view(pending_).substr(0, complete));
    pending_.erase(0, complete);
    return text;
  }

  // What is held back: an incomplete character becomes U+FFFD.
  std::string Flush() {
    std::string text = RepairUtf8(pending_);
    pending_.clear();
    return text;
  }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;  // fewer than four bytes
};

}  // namespace sessa
