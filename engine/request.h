// What a client of the engine hands in and gets back: token ids, never text. Values here are validated by
// Engine::Submit; the server's own limits (stop strings, n, body size) come before. Times are
// MonotonicNow()'s.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace sessa {

using RequestId = uint64_t;

struct SamplingParams {
  int max_tokens = 16;
  int min_tokens = 0;               // eos and stop_token_ids are masked until this many tokens were generated
  float temperature = 1.0f;         // 0: greedy
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  int top_k = 0;                    // 0: off
  float presence_penalty = 0.0f;    // [-2, 2], over generated tokens
  float frequency_penalty = 0.0f;   // [-2, 2], over generated tokens
  float repetition_penalty = 1.0f;  // (0, 10], over prompt and generated tokens
  uint64_t seed = 0;                // the same seed and request give the same tokens
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;
  std::vector<int32_t> allowed_token_ids;             // empty: all
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the logits
  int num_logprobs = -1;                              // -1: none; n >= 0: the token's own and the n best
  bool prompt_logprobs = false;                       // also for each prompt token but the first
  int prompt_logprobs_start = 1;  // or but those before this position, whose states a cached prefix may give
};

// log-probabilities of the model's own distribution: before penalties, bias and temperature.
struct TokenLogprobs {
  float logprob = 0.0f;                        // of the token itself
  int32_t rank = 0;                            // its place in the vocabulary by that, from 1
  std::vector<std::pair<int32_t, float>> top;  // the num_logprobs best, best first
};

enum class FinishReason { kNone, kStop, kLength };

struct TokenUpdate {
  int choice = 0;  // which of the n sequences
  int32_t token = 0;
  TokenLogprobs logprobs;  // filled when num_logprobs >= 0
  FinishReason finish =
      FinishReason::kNone;  // not kNone: this choice's last token (kStop: eos or a stop token id)
};

struct PromptInfo {
  int num_tokens = 0;
  int num_cached_tokens = 0;
  std::vector<TokenLogprobs>
      logprobs;  // [num_tokens - start], for positions start.. of prompt_logprobs_start
};

// How a request ended, for usage and metrics. Sent once.
struct RequestEnd {
  absl::Status
      status;  // OK, CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, INTERNAL (logits that are not numbers)
  absl::Time arrival, scheduled, first_token, finished;  // InfinitePast where it did not come to that
  int num_generated_tokens = 0;                          // over all choices
  int num_preemptions = 0;
};

// Receives one request's results, on the engine's thread: implementations must not block. Order: OnPrompt
// once, OnToken for each token, OnEnd exactly once and last (without the others when the request ends before
// its prompt is computed).
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void OnPrompt(const PromptInfo& info) = 0;
  // false: the reader is too slow or gone; the request is cancelled.
  virtual bool OnToken(TokenUpdate update) = 0;
  virtual void OnEnd(const RequestEnd& end) = 0;
};

inline constexpr int kMaxDrafts = 16;

struct Request {
  std::vector<int32_t> prompt;  // token ids in [0, V), at least one
  SamplingParams sampling;
  int n = 1;  // choices; choice i samples with seed + i
  absl::Time deadline = absl::InfiniteFuture();
  std::string tenant;               // fairness and cache salt; empty: the default tenant
  int tenant_weight = 1;            // at least 1: the tenant's share beside others that wait
  int priority = 0;                 // lower first, among the tenant's own requests
  int num_speculative_tokens = -1;  // the most drafts of a sequence in a step, at most kMaxDrafts; 0: none;
                                    // -1: the engine's. Changes when tokens come, never which
  std::shared_ptr<TokenSink> sink;
};

}  // namespace sessa
