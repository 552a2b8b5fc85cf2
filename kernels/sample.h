// What Backend::Sample is told about each row: the parameters of its distribution, and what changes in its
// logits before that. The same score, bit for bit, comes out of an edit on every device.
#pragma once

#include <cstdint>
#include <limits>

namespace sessa {

// What becomes of one id's logit.
struct SampleEdit {
  int32_t id = 0;
  float bias = 0;      // added; -infinity excludes the id
  int32_t count = -1;  // of the id among the generated tokens; -1: it is not even in the prompt
};

struct SampleRow {
  int32_t row = 0;                        // of the logits
  int32_t first_edit = 0, num_edits = 0;  // of the call's edits; their ids differ
  bool only_edited = false;               // ids without an edit are excluded
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;  // of edits with a count
  float temperature = 1;  // 0: the best, and nothing below matters
  int32_t top_k = 0;      // 0: off
  float top_p = 1, min_p = 0;
  double uniform = 0;  // [0, 1): the place in the running sum of the weights, in the order of the ids
};

// NaN is never chosen, and infinity is no more than the largest number.
constexpr float CleanLogit(float x) {
  if (x != x) return -std::numeric_limits<float>::infinity();
  return x < std::numeric_limits<float>::max() ? x : std::numeric_limits<float>::max();
}

// Penalties: Keskar et al. 2019 (repetition), OpenAI's presence and frequency.
constexpr float Edited(float logit, const SampleRow& row, const SampleEdit& edit) {
  float score = CleanLogit(logit) + edit.bias;
  if (edit.count >= 0) score = score > 0 ? score / row.repetition_penalty : score * row.repetition_penalty;
  if (edit.count > 0) score -= row.presence_penalty + row.frequency_penalty * static_cast<float>(edit.count);
  return CleanLogit(score);
}

}  // namespace sessa
