// What an answer says of its prompt: its tokens' log-probabilities, with prompt_logprobs, then the prompt as
// the beginning of its choices, with echo. Made piece by piece, as a prompt of thousands of tokens with 20
// log-probabilities each comes to megabytes. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/core/generation.h"
#include "server/core/generation_request.h"
#include "server/tokenizer/detokenizer.h"

namespace sessa {

class PromptEcho {
 public:
  // `tokenizer` (null: token ids alone), `request` and `ids` outlive this; those from `start` on are echoed
  // and scored. Where nothing is streamed each piece of an echo is made once, for all n choices; else the
  // choices come one after the other.
  PromptEcho(const Tokenizer* tokenizer, const GenerationRequest& request, int prompt_index,
             const std::vector<int32_t>& ids, int start, PromptInfo info);

  // The next piece, of about kPieceTokens tokens: PromptLogprobs, then TextDeltas; none after the last.
  std::optional<GenerationEvent> Next();
  int64_t code_points() const { return code_points_; }  // of the prompt's text; after the last piece

 private:
  // Small enough for one message of a stream: 32 tokens with 20 log-probabilities are some 20 KB.
  static constexpr size_t kPieceTokens = 32;

  // Goes on in the prompt: the text, and with logprobs >= 0 the tokens with so many rivals.
  std::string Piece(int64_t logprobs, std::vector<LogprobEntry>* entries);

  const Tokenizer* const tokenizer_;
  const GenerationRequest& request_;
  const int prompt_index_, n_;
  const std::vector<int32_t>& ids_;
  const size_t start_;
  const PromptInfo info_;
  // The prompt goes through a detokenizer of its own, so that its text and its offsets agree.
  std::optional<Detokenizer> detokenizer_;
  bool scoring_;  // the log-probabilities come first
  int choice_;    // of the echo
  size_t next_;   // of ids_
  int64_t code_points_ = 0;
};

}  // namespace sessa
