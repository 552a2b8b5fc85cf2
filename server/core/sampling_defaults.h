// What a checkpoint asks to be sampled with where a request does not say: generation_config.json's values,
// within the bounds of a request's own. Plain data.
#pragma once

#include <cstdint>
#include <optional>

namespace sessa {

struct SamplingDefaults {
  // None: the API's own default.
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  // The checkpoint's max_new_tokens: no answer is longer, whatever a request asks for, as in vLLM.
  std::optional<int64_t> max_tokens;
};

}  // namespace sessa
