#include "kernels/cpu/sample.h"

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/softmax.h"

namespace sessa::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

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

int32_t RowSampler::Sample(absl::Span<const float> logits, const SampleRow& row,
                           absl::Span<const SampleEdit> edits) {
  if (row.temperature == 0 && !row.only_edited && edits.empty()) return ArgMax(logits);
  scores_.resize(logits.size());
  weights_.resize(logits.size());
  if (row.only_edited) {
    std::fill(scores_.begin(), scores_.end(), kNever);
  } else {
    std::copy(logits.begin(), logits.end(), scores_.begin());
  }
  for (const SampleEdit& edit : edits) scores_[edit.id] = Edited(logits[edit.id], row, edit);
  const float best = CleanAndMax(absl::MakeSpan(scores_));
  if (best == kNever) return -1;
  if (row.temperature == 0) return ArgMax(scores_);
  return Draw(row, best);
}

RowSampler::Candidate RowSampler::Cut(float best, int count, double sum) {
  // Most distributions leave few scores in the bucket of the cut, and only those are sorted.
  std::array<int, kBuckets> counts = {};
  std::array<double, kBuckets> sums = {};
  const bool weighted = sum < std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < scores_.size(); ++id) {
    if (scores_[id] == kNever) continue;
    const int bucket = BucketOf(scores_[id], best);
    ++counts[bucket];
    if (weighted) sums[bucket] += weights_[id];
  }
  int bucket = 0;
  for (; bucket + 1 < kBuckets && counts[bucket] < count && sums[bucket] < sum; ++bucket) {
    count -= counts[bucket];
    sum -= sums[bucket];
  }
  candidates_.clear();
  for (size_t id = 0; id < scores_.size(); ++id) {
    if (scores_[id] != kNever && BucketOf(scores_[id], best) == bucket)
      candidates_.emplace_back(scores_[id], static_cast<int32_t>(id));
  }
  if (candidates_.empty()) return {kNever, std::numeric_limits<int32_t>::max()};  // there are fewer: all stay
  std::sort(candidates_.begin(), candidates_.end(), kBetter);
  auto last = candidates_.begin();
  for (; last + 1 < candidates_.end(); ++last) {
    if (--count <= 0) break;
    if (weighted && (sum -= weights_[last->second]) <= 0) break;
  }
  return *last;
}

int32_t RowSampler::Draw(const SampleRow& row, float best) {
  const int size = static_cast<int>(scores_.size());
  if (row.top_k > 0 && row.top_k < size) {
    const Candidate last = Cut(best, row.top_k, std::numeric_limits<double>::infinity());
    for (int id = 0; id < size; ++id) {
      if (kBetter(last, Candidate(scores_[id], id))) scores_[id] = kNever;
    }
  }
  // A temperature near 0 must not overflow: 0 times the scale is the best one's.
  ExpDifference(scores_, best, std::min(1 / row.temperature, std::numeric_limits<float>::max()),
                weights_.data());
  if (row.top_p < 1) {
    const Candidate last = Cut(best, size, row.top_p * Sum(weights_));
    for (int id = 0; id < size; ++id) {
      if (kBetter(last, Candidate(scores_[id], id))) weights_[id] = 0;
    }
  }
  if (row.min_p > 0) {
    for (float& weight : weights_) weight = weight < row.min_p ? 0 : weight;  // the best weighs 1
  }
  // The place of a uniform number in the running sum over ids, blocks of ids first.
  constexpr int kBlock = 512;
  double left = row.uniform * Sum(weights_);
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

}  // namespace sessa::cpu
