#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/softmax.h"

namespace sessa {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr int32_t kInPrompt = 1 << 30;  // flag beside the count of generated occurrences

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Better first: higher score, then lower id.
constexpr auto kBetter = [](const auto& a, const auto& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
};

// Scores are sorted into buckets by their distance from the best one; the last bucket holds all that are far
// below.
constexpr int kBuckets = 2048;
constexpr float kBucketsForOne = 64;  // for a difference of 1
int BucketOf(float score, float best) {
  return static_cast<int>(std::min((best - score) * kBucketsForOne, kBuckets - 1.0f));
}

}  // namespace

double UniformAt(uint64_t seed, uint64_t counter) {
  // Two rounds: neighbouring seeds (choices of one request) must not give shifted copies of one stream.
  const uint64_t bits = Mix(Mix(seed + 0x9e3779b97f4a7c15u) + (counter + 1) * 0x9e3779b97f4a7c15u);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

Sampler::Sampler(int vocab_size, std::vector<int32_t> eos_token_ids)
    : eos_token_ids_(std::move(eos_token_ids)),
      scores_(vocab_size),
      weights_(vocab_size),
      counts_(vocab_size) {
  candidates_.reserve(vocab_size);
}

int32_t Sampler::Sample(absl::Span<const float> logits, const SamplingParams& params,
                        absl::Span<const int32_t> tokens, int prompt_size, uint64_t seed) {
  std::copy(logits.begin(), logits.end(), scores_.begin());
  CleanAndMax(absl::MakeSpan(scores_));
  Adjust(params, tokens, prompt_size);
  Penalize(params, tokens, prompt_size);
  if (params.temperature == 0) return ArgMax(scores_);
  const float best = CleanAndMax(absl::MakeSpan(scores_));
  if (best == kNever) return -1;
  return Draw(params, best, seed, tokens.size() - prompt_size);
}

void Sampler::Adjust(const SamplingParams& params, absl::Span<const int32_t> tokens, int prompt_size) {
  if (!params.allowed_token_ids.empty()) {
    saved_.clear();
    for (int32_t id : params.allowed_token_ids) saved_.push_back(scores_[id]);
    std::fill(scores_.begin(), scores_.end(), kNever);
    for (size_t i = 0; i < saved_.size(); ++i) scores_[params.allowed_token_ids[i]] = saved_[i];
  }
  for (auto [id, bias] : params.logit_bias) scores_[id] += bias;
  if (static_cast<int64_t>(tokens.size()) - prompt_size < params.min_tokens) {
    if (!params.ignore_eos) {
      for (int32_t id : eos_token_ids_) scores_[id] = kNever;
    }
    for (int32_t id : params.stop_token_ids) scores_[id] = kNever;
  }
}

void Sampler::Penalize(const SamplingParams& params, absl::Span<const int32_t> tokens, int prompt_size) {
  const bool repetition = params.repetition_penalty != 1;
  if (!repetition && params.presence_penalty == 0 && params.frequency_penalty == 0) return;
  if (repetition) {
    for (int32_t id : tokens.first(prompt_size)) counts_[id] |= kInPrompt;
  }
  for (int32_t id : tokens.subspan(prompt_size)) ++counts_[id];
  for (int32_t id : tokens) {
    const int32_t count = counts_[id];
    if (count == 0) continue;  // done at an earlier occurrence, or in the prompt alone
    counts_[id] = 0;
    float& score = scores_[id];
    if (repetition) score = score > 0 ? score / params.repetition_penalty : score * params.repetition_penalty;
    const int32_t generated = count & ~kInPrompt;
    if (generated > 0) score -= params.presence_penalty + params.frequency_penalty * generated;
  }
}

Sampler::Candidate Sampler::Cut(absl::Span<const float> scores, float best, int count, double sum) {
  // Most distributions leave few scores in the bucket of the cut, and only those are sorted.
  std::array<int, kBuckets> counts = {};
  std::array<double, kBuckets> sums = {};
  const bool weighted = sum < std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < scores.size(); ++id) {
    if (scores[id] == kNever) continue;
    const int bucket = BucketOf(scores[id], best);
    ++counts[bucket];
    if (weighted) sums[bucket] += weights_[id];
  }
  int bucket = 0;
  for (; bucket + 1 < kBuckets && counts[bucket] < count && sums[bucket] < sum; ++bucket) {
    count -= counts[bucket];
    sum -= sums[bucket];
  }
  candidates_.clear();
  for (size_t id = 0; id < scores.size(); ++id) {
    if (scores[id] != kNever && BucketOf(scores[id], best) == bucket)
      candidates_.emplace_back(scores[id], static_cast<int32_t>(id));
  }
  std::sort(candidates_.begin(), candidates_.end(), kBetter);
  auto last = candidates_.begin();
  for (; last + 1 < candidates_.end(); ++last) {
    if (--count <= 0) break;
    if (weighted && (sum -= weights_[last->second]) <= 0) break;
  }
  return *last;
}

int32_t Sampler::Draw(const SamplingParams& params, float best, uint64_t seed, uint64_t counter) {
  const int size = static_cast<int>(scores_.size());
  if (params.top_k > 0 && params.top_k < size) {
    const Candidate last = Cut(scores_, best, params.top_k, std::numeric_limits<double>::infinity());
    for (int id = 0; id < size; ++id) {
      if (kBetter(last, Candidate(scores_[id], id))) scores_[id] = kNever;
    }
  }
  // A temperature near 0 must not overflow: 0 times the scale is the best one's.
  ExpDifference(scores_, best, std::min(1 / params.temperature, std::numeric_limits<float>::max()),
                weights_.data());
  if (params.top_p < 1) {
    const Candidate last = Cut(scores_, best, size, params.top_p * Sum(weights_));
    for (int id = 0; id < size; ++id) {
      if (kBetter(last, Candidate(scores_[id], id))) weights_[id] = 0;
    }
  }
  if (params.min_p > 0) {
    for (float& weight : weights_) weight = weight < params.min_p ? 0 : weight;  // the best weighs 1
  }
  // The place of a uniform number in the running sum over ids, blocks of ids first.
  constexpr int kBlock = 512;
  double left = UniformAt(seed, counter) * Sum(weights_);
  int begin = 0;
  for (; begin + kBlock < size; begin += kBlock) {
    const double sum = Sum(absl::MakeConstSpan(weights_).subspan(begin, kBlock));
    if (left < sum) break;
    left -= sum;
  }
  int32_t chosen = -1;
  for (int id = begin; id < size; ++id) {
    if (weights_[id] <= 0) continue;
    chosen = id;
    left -= weights_[id];
    if (left < 0) break;
  }
  for (int id = begin; chosen < 0; --id) {  // rounding took it past the last one
    if (weights_[id] > 0) chosen = id;
  }
  return chosen;
}

TokenLogprobs Sampler::Logprobs(absl::Span<const float> logits, int32_t token, int num_top) {
  std::copy(logits.begin(), logits.end(), scores_.begin());
  const float best = CleanAndMax(absl::MakeSpan(scores_));
  ExpDifference(scores_, best, 1, weights_.data());
  const double normalizer = best + std::log(Sum(weights_));
  TokenLogprobs result;
  result.logprob = static_cast<float>(logits[token] - normalizer);
  num_top = std::min<int>(num_top, static_cast<int>(logits.size()));
  if (num_top <= 0) return result;
  candidates_.clear();
  for (size_t id = 0; id < scores_.size(); ++id)
    candidates_.emplace_back(scores_[id], static_cast<int32_t>(id));
  std::partial_sort(candidates_.begin(), candidates_.begin() + num_top, candidates_.end(), kBetter);
  for (int i = 0; i < num_top; ++i) {
    result.top.emplace_back(candidates_[i].second, static_cast<float>(candidates_[i].first - normalizer));
  }
  return result;
}

}  // namespace sessa
