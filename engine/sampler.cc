#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/softmax.h"

namespace sessa {
namespace {

constexpr int32_t kNone = -1;

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Better first: higher score, then lower id.
constexpr auto kBetter = [](const auto& a, const auto& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
};

}  // namespace

double UniformAt(uint64_t seed, uint64_t counter) {
  // Two rounds: neighbouring seeds (choices of one request) must not give shifted copies of one stream.
  const uint64_t bits = Mix(Mix(seed + 0x9e3779b97f4a7c15u) + (counter + 1) * 0x9e3779b97f4a7c15u);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

Sampler::Sampler(int vocab_size, std::vector<int32_t> eos_token_ids)
    : eos_token_ids_(std::move(eos_token_ids)),
      edit_of_(vocab_size, kNone),
      scores_(vocab_size),
      weights_(vocab_size) {
  candidates_.reserve(vocab_size);
}

SampleRow Sampler::Row(const SamplingParams& params, absl::Span<const int32_t> tokens, int prompt_size,
                       uint64_t seed, std::vector<SampleEdit>* edits) {
  SampleRow row;
  row.first_edit = static_cast<int32_t>(edits->size());
  // The id's edit, or null when it is excluded by not having one.
  const auto edit_of = [&](int32_t id) -> SampleEdit* {
    int32_t& place = edit_of_[id];
    if (place == kNone) {
      if (row.only_edited) return nullptr;
      place = static_cast<int32_t>(edits->size()) - row.first_edit;
      edits->push_back({.id = id});
    }
    return edits->data() + row.first_edit + place;
  };
  for (int32_t id : params.allowed_token_ids) edit_of(id);
  row.only_edited = !params.allowed_token_ids.empty();
  for (auto [id, bias] : params.logit_bias) {
    if (SampleEdit* edit = edit_of(id)) edit->bias += bias;
  }
  const absl::Span<const int32_t> generated = tokens.subspan(prompt_size);
  if (static_cast<int64_t>(generated.size()) < params.min_tokens) {
    const auto exclude = [&](int32_t id) {
      if (SampleEdit* edit = edit_of(id)) edit->bias = -std::numeric_limits<float>::infinity();
    };
    if (!params.ignore_eos) std::for_each(eos_token_ids_.begin(), eos_token_ids_.end(), exclude);
    std::for_each(params.stop_token_ids.begin(), params.stop_token_ids.end(), exclude);
  }
  const bool repetition = params.repetition_penalty != 1;
  if (repetition) {
    for (int32_t id : tokens.first(prompt_size)) {
      if (SampleEdit* edit = edit_of(id)) edit->count = 0;
    }
  }
  if (repetition || params.presence_penalty != 0 || params.frequency_penalty != 0) {
    for (int32_t id : generated) {
      if (SampleEdit* edit = edit_of(id)) edit->count = std::max(edit->count, 0) + 1;
    }
  }
  row.num_edits = static_cast<int32_t>(edits->size()) - row.first_edit;
  for (const SampleEdit& edit : absl::MakeConstSpan(*edits).subspan(row.first_edit))
    edit_of_[edit.id] = kNone;
  row.repetition_penalty = params.repetition_penalty;
  row.presence_penalty = params.presence_penalty;
  row.frequency_penalty = params.frequency_penalty;
  row.temperature = params.temperature;
  row.top_k = params.top_k;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.uniform = UniformAt(seed, generated.size());
  return row;
}

TokenLogprobs Sampler::Logprobs(absl::Span<const float> logits, int32_t token, int num_top) {
  std::copy(logits.begin(), logits.end(), scores_.begin());
  const float best = CleanAndMax(absl::MakeSpan(scores_));
  ExpDifference(scores_, best, 1, weights_.data());
  const double normalizer = best + std::log(Sum(weights_));
  TokenLogprobs result;
  result.logprob = static_cast<float>(logits[token] - normalizer);
  // Its place in the order of kBetter, which is that of `top`, without sorting a vocabulary.
  const float score = scores_[token];
  const auto place = scores_.begin() + token;
  result.rank =
      1 + static_cast<int32_t>(
              std::count_if(scores_.begin(), place, [score](float other) { return other >= score; }) +
              std::count_if(place, scores_.end(), [score](float other) { return other > score; }));
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
