// How a sequence's next token is chosen: what its parameters mean for Backend::Sample, and the
// log-probabilities beside it. A pure function of parameters, tokens and seed: the random number is a hash of
// the seed and of how many tokens were generated, so batches, preemption and ranks cannot change what is
// drawn. Order: allowed tokens, bias and min_tokens; penalties; temperature; top_k; top_p (Holtzman et al.
// 2020); min_p (Nguyen et al. 2024).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "engine/request.h"
#include "kernels/sample.h"

namespace sessa {

// Not thread-safe: keeps scratch of the vocabulary's size, so that a step allocates nothing.
class Sampler {
 public:
  Sampler(int vocab_size, std::vector<int32_t> eos_token_ids);

  // What the next token is drawn by; its edits go behind those of other rows. tokens: prompt_size prompt
  // tokens, then those generated. Biases of the same id are added up.
  SampleRow Row(const SamplingParams& params, absl::Span<const int32_t> tokens, int prompt_size,
                uint64_t seed, std::vector<SampleEdit>* edits);

  // log softmax(logits)[token], the token's place by it, and the num_top best, best first, ties by id.
  // logits [V].
  TokenLogprobs Logprobs(absl::Span<const float> logits, int32_t token, int num_top);

 private:
  const std::vector<int32_t> eos_token_ids_;
  std::vector<int32_t> edit_of_;  // [V], all kNone between calls; the place of an id's edit in its row's
  std::vector<float> scores_, weights_;                // [V]
  std::vector<std::pair<float, int32_t>> candidates_;  // score, id
};

// Uniform in [0, 1), from the counter-th number of the stream `seed` (splitmix64, Steele et al. 2014).
double UniformAt(uint64_t seed, uint64_t counter);

}  // namespace sessa
