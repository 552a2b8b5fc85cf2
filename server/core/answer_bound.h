// The most bytes that an answer may have, known before anything of it is computed, so that no request is
// taken whose answer is larger than Limits::max_answer_bytes. What is bounded is what the client asked for as
// JSON: text, token ids and log-probabilities of all choices, not what frames the events of a stream. Over
// gRPC the same is smaller. Constant after construction, thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/request.h"
#include "server/core/generation_request.h"

namespace sessa {

class Tokenizer;

class AnswerBound {
 public:
  static constexpr int64_t kIdBytes = 11;  // `1234567890,`

  // `tokenizer` outlives this; null: token ids alone. Looks at every token once.
  AnswerBound(const Tokenizer* tokenizer, int vocab_size, int max_logprobs);

  // INVALID_ARGUMENT, naming both numbers, when the answer may be larger than `max_bytes`. A chat that names
  // no max_tokens gets what fits: of `requests`, one for each of `prompts`, max_tokens is lowered.
  absl::Status Check(const GenerationRequest& request, absl::Span<const std::vector<int32_t>> prompts,
                     absl::Span<Request> requests, int64_t max_bytes) const;

  // The most bytes of a text of these tokens, as the inside of a JSON string.
  int64_t TextBytes(absl::Span<const int32_t> ids) const;

  // What the raw log-probabilities of the prompts take in memory, in the engine and while they wait here.
  static int64_t PromptLogprobBytes(const GenerationRequest& request,
                                    absl::Span<const std::vector<int32_t>> prompts);

 private:
  struct Size {
    int64_t json = 0, raw = 0;  // bytes as the inside of a JSON string, and as they are
  };
  Size Of(int32_t id) const;
  // One token in a choice: its text, its id, and itself and its rivals with their log-probabilities.
  int64_t TokenBytes(const GenerationRequest& request, const Size& token) const;
  // One token of a prompt among prompt_logprobs. Requires: those are asked for.
  int64_t PromptTokenBytes(const GenerationRequest& request, const Size& token) const;

  const Tokenizer* const tokenizer_;
  std::vector<Size> longest_;  // [k]: of the k tokens that are longest, in all; a token's rivals are distinct
};

}  // namespace sessa
