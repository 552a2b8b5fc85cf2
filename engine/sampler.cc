#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
constexpr auto kWorse = [](const auto& a, const auto& b) { return kBetter(b, a); };

}  // namespace

double UniformAt(uint64_t seed, uint64_t counter) {
  // Two rounds: neighbouring seeds (choices of one request) must not give shifted copies of one stream.
  const uint64_t bits = Mix(Mix(seed + 0x9e3779b97f4a7c15u) + (counter + 1) * 0x9e3779b97f4a7c15u);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

Sampler::Sampler(int vocab_size, std::vector<int32_t> eos_token_ids)
    : eos_token_ids_(std::move(eos_token_ids)), scores_(vocab_size), counts_(vocab_size) {
  candidates_.reserve(vocab_size);
}

int32_t Sampler::Sample(absl::Span<const float> logits, const SamplingParams& params, absl::Span<const int32_t> tokens,
                        int prompt_size, uint64_t seed) {
  std::copy(logits.begin(), logits.end(), scores_.begin());
  for (float& score : scores_) {
    if (std::isnan(score)) score = kNever;
  }
  Adjust(params, tokens, prompt_size);
  Penalize(params, tokens, prompt_size);
  if (params.temperature == 0) return Best();
  return Draw(params, seed, tokens.size() - prompt_size);
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

int32_t Sampler::Best() const {
  const auto best = std::max_element(scores_.begin(), scores_.end());
  return *best == kNever ? -1 : static_cast<int32_t>(best - scores_.begin());
}

int32_t Sampler::Draw(const SamplingParams& params, uint64_t seed, uint64_t counter) {
  candidates_.clear();
  float best = kNever;
  for (size_t id = 0; id < scores_.size(); ++id) {
    if (scores_[id] == kNever) continue;
    candidates_.emplace_back(scores_[id], static_cast<int32_t>(id));
    best = std::max(best, scores_[id]);
  }
  if (candidates_.empty()) return -1;
  if (params.top_k > 0 && params.top_k < static_cast<int>(candidates_.size())) {
    std::nth_element(candidates_.begin(), candidates_.begin() + params.top_k, candidates_.end(), kBetter);
    candidates_.resize(params.top_k);
  }
  // Scores become weights, relative to the best. In double: a temperature near 0 must not overflow.
  double total = 0;
  const double scale = 1.0 / params.temperature;
  for (Candidate& c : candidates_) {
    c.first = static_cast<float>(std::exp((static_cast<double>(c.first) - best) * scale));
    total += c.first;
  }
  if (params.top_p < 1) {
    // A heap gives the best candidates in turn: the nucleus is mostly a small part of the vocabulary.
    std::make_heap(candidates_.begin(), candidates_.end(), kWorse);
    const double wanted = params.top_p * total;
    auto end = candidates_.end();
    double sum = 0;
    while (sum < wanted && end != candidates_.begin()) {
      std::pop_heap(candidates_.begin(), end, kWorse);
      sum += (--end)->first;
    }
    candidates_.erase(candidates_.begin(), end);
    total = sum;
  }
  if (params.min_p > 0) {
    total = 0;
    auto kept = candidates_.begin();
    for (const Candidate& c : candidates_) {
      if (c.first < params.min_p) continue;  // the best weighs 1
      total += c.first;
      *kept++ = c;
    }
    candidates_.erase(kept, candidates_.end());
  }
  // In order of ids, so that the draw does not depend on how the candidates were found.
  if (params.top_k > 0 || params.top_p < 1) {
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) { return a.second < b.second; });
  }
  double left = UniformAt(seed, counter) * total;
  int32_t last = candidates_.front().second;
  for (const Candidate& c : candidates_) {
    if (c.first <= 0) continue;
    last = c.second;
    left -= c.first;
    if (left < 0) break;
  }
  return last;
}

TokenLogprobs Sampler::Logprobs(absl::Span<const float> logits, int32_t token, int num_top) {
  float best = kNever;
  for (float x : logits) best = std::max(best, x);
  double total = 0;
  for (float x : logits) total += std::exp(static_cast<double>(x) - best);
  const double normalizer = best + std::log(total);
  TokenLogprobs result;
  result.logprob = static_cast<float>(logits[token] - normalizer);
  num_top = std::min<int>(num_top, static_cast<int>(logits.size()));
  if (num_top <= 0) return result;
  candidates_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    candidates_.emplace_back(std::isnan(logits[id]) ? kNever : logits[id], static_cast<int32_t>(id));
  }
  std::partial_sort(candidates_.begin(), candidates_.begin() + num_top, candidates_.end(), kBetter);
  for (int i = 0; i < num_top; ++i) {
    result.top.emplace_back(candidates_[i].second, static_cast<float>(candidates_[i].first - normalizer));
  }
  return result;
}

}  // namespace sessa
