// A prompt as the beginning of its choices' answers, with echo: made piece by piece, as a prompt of thousands
// of tokens with 20 log-probabilities each comes to megabytes. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "server/core/generation.h"
#include "server/tokenizer/detokenizer.h"

namespace sessa {

class PromptEcho {
 public:
  // `tokenizer` (null: token ids alone) and `ids` outlive this; those from `start` on are echoed. `once`: each
  // piece is made once, for all n choices; else the choices come one after the other.
  PromptEcho(const Tokenizer* tokenizer, bool skip_special_tokens, bool with_logprobs, int prompt_index,
             int n, bool once, const std::vector<int32_t>& ids, int start, PromptInfo info);

  // The next piece, of about kPieceTokens tokens; none after the last.
  std::optional<TextDelta> Next();
  int64_t code_points() const { return code_points_; }  // of the prompt's text; after the last piece

 private:
  // Small enough for one message of a stream: 32 tokens with 20 log-probabilities are some 20 KB.
  static constexpr size_t kPieceTokens = 32;

  const Tokenizer* const tokenizer_;
  const bool skip_special_tokens_, with_logprobs_, once_;
  const int prompt_index_, n_;
  const std::vector<int32_t>& ids_;
  const size_t start_;
  const PromptInfo info_;
  // The prompt goes through a detokenizer of its own, so that its text and its offsets agree.
  std::optional<Detokenizer> detokenizer_;
  int choice_ = 0;
  size_t next_;  // of ids_
  int64_t code_points_ = 0;
};

}  // namespace sessa
