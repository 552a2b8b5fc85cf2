// Chooses a sequence's next token. A pure function of logits, parameters, tokens and seed: the random number
// is a hash of the seed and of how many tokens were generated, so batches, preemption and ranks cannot change
// what is drawn. Order: allowed tokens, bias and min_tokens; penalties (Keskar et al. 2019; OpenAI's presence
// and frequency); temperature; top_k; top_p (Holtzman et al. 2020); min_p (Nguyen et al. 2024).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "engine/request.h"

namespace sessa {

// Not thread-safe: keeps scratch of the vocabulary's size, so that a step allocates nothing.
class Sampler {
 public:
  Sampler(int vocab_size, std::vector<int32_t> eos_token_ids);

  // logits [V]; tokens: prompt_size prompt tokens, then those generated. Of equal candidates the lowest id
  // wins. A NaN is never chosen; -1 when nothing that params allows is a number.
  int32_t Sample(absl::Span<const float> logits, const SamplingParams& params,
                 absl::Span<const int32_t> tokens, int prompt_size, uint64_t seed);

  // log softmax(logits)[token] and the num_top best, best first, ties by id.
  TokenLogprobs Logprobs(absl::Span<const float> logits, int32_t token, int num_top);

 private:
  using Candidate = std::pair<float, int32_t>;  // score, id

  void Adjust(const SamplingParams& params, absl::Span<const int32_t> tokens, int prompt_size);
  void Penalize(const SamplingParams& params, absl::Span<const int32_t> tokens, int prompt_size);
  int32_t Draw(const SamplingParams& params, float best, uint64_t seed, uint64_t counter);
  // The worst of the `count` best scores, or of the fewest best whose weights reach `sum`, whatever comes
  // first.
  Candidate Cut(absl::Span<const float> scores, float best, int count, double sum);

  const std::vector<int32_t> eos_token_ids_;
  std::vector<float> scores_;    // [V]
  std::vector<float> weights_;   // [V], exp((score - best) / temperature), 0 of what is excluded
  std::vector<float> saved_;     // allowed ids' logits
  std::vector<int32_t> counts_;  // [V], all zero between calls; occurrences, the prompt's as kInPrompt
  std::vector<Candidate> candidates_;
};

// Uniform in [0, 1), from the counter-th number of the stream `seed` (splitmix64, Steele et al. 2014).
double UniformAt(uint64_t seed, uint64_t counter);

}  // namespace sessa
