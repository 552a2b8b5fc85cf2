#include "engine/cost_model.h"

#include <algorithm>

#include "kernels/tile.h"  // where the kernels cut blocks of rows

namespace sessa {
namespace {

// Before anything was measured: a model of shape A (performance.md: D 1024, 24 layers) on two slow cores.
constexpr double kInitialSeconds[] = {
    2e-3,  // a step
    1e-3,  // a row: 0.36 GFLOP
    4e-6,  // a token read: 120 KiB
    1e-6,  // a token attended to in prefill: 0.2 MFLOP
};
constexpr double kForget = 1.0 - 1.0 / 40;
constexpr double kPrior = 1e-3;  // pull towards the last coefficients, relative to what a term has been seen
constexpr double kWild = 8;      // a step is believed to take at most this many times what was predicted,
constexpr double kTick = 1e-5;   // or this, in seconds, where next to nothing was predicted
constexpr int kSweeps = 16;      // of coordinate descent on four unknowns

}  // namespace

void StepFeatures::AddPrefill(int64_t start, int64_t num_rows) {
  rows += num_rows;
  pairs += num_rows * start + num_rows * (num_rows + 1) / 2;
  for (const int64_t end = start + num_rows; start < end; start = (start / kTileTokens + 1) * kTileTokens)
    reads += start;
}

StepFeatures FeaturesOf(const StepPlan& plan) {
  StepFeatures features;
  for (const PlanSequence& s : plan.sequences) {
    if (s.num_rows == 1) {
      features.AddDecode(s.start);
    } else {
      features.AddPrefill(s.start, s.num_rows);
    }
  }
  features.reads -= plan.num_shared_reads;
  return features;
}

CostModel::Vector CostModel::Terms(const StepFeatures& f) {
  return {kInitialSeconds[0], kInitialSeconds[1] * static_cast<double>(f.rows),
          kInitialSeconds[2] * static_cast<double>(f.reads),
          kInitialSeconds[3] * static_cast<double>(f.pairs)};
}

absl::Duration CostModel::Predict(const StepFeatures& features) const {
  const Vector terms = Terms(features);
  double seconds = 0;
  for (int i = 0; i < kSize; ++i) seconds += coefficients_[i] * terms[i];
  return absl::Seconds(seconds);
}

void CostModel::Observe(const StepFeatures& features, absl::Duration duration) {
  if (features.rows <= 0 || duration <= absl::ZeroDuration()) return;
  const double believable = std::max(kTick, kWild * absl::ToDoubleSeconds(Predict(features)));
  const double seconds = std::min(absl::ToDoubleSeconds(duration), believable);
  Vector phi = Terms(features);  // relative: the residual of a step is phi . coefficients - 1
  for (double& x : phi) x /= seconds;
  for (int i = 0; i < kSize; ++i) {
    for (int j = 0; j < kSize; ++j) gram_[i][j] = kForget * gram_[i][j] + phi[i] * phi[j];
    moment_[i] = kForget * moment_[i] + phi[i];
  }
  const Vector last = coefficients_;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    for (int i = 0; i < kSize; ++i) {
      const double prior = kPrior * gram_[i][i];
      if (gram_[i][i] <= 0) continue;
      double gradient = moment_[i] + prior * last[i];
      for (int j = 0; j < kSize; ++j) {
        if (j != i) gradient -= gram_[i][j] * coefficients_[j];
      }
      coefficients_[i] = std::max(0.0, gradient / (gram_[i][i] + prior));
    }
  }
}

int CostModel::MaxPrefillRows(const StepFeatures& features, int start, int max_rows,
                              absl::Duration limit) const {
  const auto fits = [&](int rows) {
    StepFeatures with = features;
    with.AddPrefill(start, rows);
    return Predict(with) <= limit;
  };
  int low = 0, high = max_rows;  // rows that fit, rows that might
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

}  // namespace sessa
