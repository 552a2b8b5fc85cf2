// A completion or chat request as the client sent it, in plain C++: both front ends fill it, ValidateRequest
// is the one place that judges it. Numbers are wide (double, int64) so that what the client wrote is judged,
// not what it became after a narrowing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request.h"
#include "server/core/limits.h"
#include "server/core/sampling_defaults.h"
#include "server/tokenizer/chat.h"

namespace sessa {

using PromptInput = std::variant<std::string, std::vector<int32_t>>;  // text or token ids

struct GenerationRequest {
  std::string model;     // empty: the one that is served
  bool is_chat = false;  // true: `chat`, false: `prompts`
  std::vector<PromptInput> prompts;
  Chat chat;
  std::string prompt_name = "prompt";  // what this client calls what the prompt is made of, for errors

  // What is none here is SamplingDefaults' value, or the one beside it where that has none.
  std::optional<int64_t>
      max_tokens;  // 16 for completions, what fits for chat; 0 only with echo or prompt_logprobs
  std::string max_tokens_name = "max_tokens";  // what this client calls it, for errors
  int64_t min_tokens = 0;
  int64_t n = 1;
  std::optional<int64_t> best_of;     // only n is served
  bool has_suffix = false;            // refused with a clear error
  std::optional<double> temperature;  // 1
  std::optional<double> top_p;        // 1
  std::optional<double> min_p;        // 0
  std::optional<int64_t> top_k;       // 0; 0 and -1: off
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::optional<double> repetition_penalty;  // 1
  std::optional<uint64_t> seed;              // none: drawn at random
  std::vector<std::string> stop;
  std::vector<int64_t> stop_token_ids;
  std::vector<int64_t> allowed_token_ids;              // empty: all
  std::vector<std::pair<int64_t, double>> logit_bias;  // token id, [-100, 100]
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  bool echo = false;
  // Of each prompt the position from which it is echoed; empty: all of it. For the server's own use.
  std::vector<int32_t> echo_starts;
  int64_t logprobs = -1;                   // -1: none; n: the token's own and the n best
  std::string logprobs_name = "logprobs";  // what this client calls it, for errors
  int64_t prompt_logprobs = -1;            // -1: none; n: each prompt token's own and the n best
  bool stream = false;
  bool include_usage = false;                     // stream_options.include_usage
  bool continuous_usage = false;                  // stream_options.continuous_usage_stats
  std::optional<int64_t> truncate_prompt_tokens;  // keep the last so many
  std::optional<bool>
      add_special_tokens;  // none: true for completions, false for chat (the template writes them)
  bool skip_special_tokens = true;
  bool return_token_ids = false;
  int64_t priority = 0;
  std::optional<int64_t> num_speculative_tokens;  // none: the engine's
  std::string user;
  std::optional<absl::Duration> timeout;  // none: Limits::default_timeout
};

// What validation needs to know of the model.
struct ModelFacts {
  std::string name;
  int vocab_size = 0;
  int max_model_len = 0;
  bool has_tokenizer = false;
  SamplingDefaults defaults;
  bool takes_drafts = true;  // false: its state cannot go back to before a wrong one
};

// Bounds of what is sampled with, by a request or by a checkpoint's defaults: INVALID_ARGUMENT names the
// field.
absl::Status CheckSamplingValues(const SamplingDefaults& values);

// OK, or the first error, naming its field as REST spells it (errors.h). Token counts of text prompts are not
// known here; the context length is checked after tokenisation.
absl::Status ValidateRequest(const GenerationRequest& request, const ModelFacts& model, const Limits& limits);

// The engine's parameters of a valid request, with the model's defaults. `num_prompt_tokens` decides chat's
// default of max_tokens.
// OUT_OF_RANGE-like ContextLengthError when prompt and max_tokens do not fit.
absl::Status ToSampling(const GenerationRequest& request, const ModelFacts& model, int num_prompt_tokens,
                        uint64_t default_seed, SamplingParams* sampling);

}  // namespace sessa
