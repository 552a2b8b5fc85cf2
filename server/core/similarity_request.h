// What a client asks of Similarity (similarity.h), which judges it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/core/generation_request.h"

namespace sessa {

struct SimilarityRequest {
  std::string model;               // empty: the one that is served
  std::vector<PromptInput> texts;  // 2 to Limits::max_similarity_texts
  int64_t num_samples = 16;        // continuations of each text: 2 to Limits::max_similarity_samples
  int64_t max_tokens = 32;         // of a continuation; it ends sooner with an end-of-text token
  std::optional<uint64_t> seed;    // none: drawn at random. The same seed and texts give the same answer
  bool ignore_eos = false;         // every continuation has max_tokens tokens
  std::optional<bool> add_special_tokens;
  int64_t priority = 0;
  std::optional<absl::Duration> timeout;  // none: Limits::default_timeout
};

}  // namespace sessa
