// See similarity_estimate.h.
#include "server/core/similarity_estimate.h"

#include <cmath>

namespace sessa {
namespace {

// `value` and `num_tokens` give a pair's sample. A ratio of means has the standard error of its residuals
// (Cochran, Sampling Techniques, chapter 6).
template <typename Value, typename Tokens>
Estimate Mean(absl::Span<const ContinuationPair> pairs, Value value, Tokens num_tokens) {
  const auto n = static_cast<double>(pairs.size());
  double sum = 0, tokens = 0;
  for (const ContinuationPair& pair : pairs) {
    sum += value(pair);
    tokens += num_tokens(pair);
  }
  Estimate estimate;
  estimate.value = sum / n;
  estimate.per_token = sum / tokens;
  double squares = 0, residuals = 0;
  for (const ContinuationPair& pair : pairs) {
    const double difference = value(pair) - estimate.value;
    const double residual = value(pair) - estimate.per_token * num_tokens(pair);
    squares += difference * difference;
    residuals += residual * residual;
  }
  estimate.standard_error = std::sqrt(squares / (n * (n - 1)));
  estimate.standard_error_per_token = std::sqrt(residuals / (n * (n - 1))) / (tokens / n);
  return estimate;
}

double PToQ(const ContinuationPair& pair) { return pair.p_under_p - pair.p_under_q; }
double QToP(const ContinuationPair& pair) { return pair.q_under_q - pair.q_under_p; }

}  // namespace

Divergences EstimateDivergences(absl::Span<const ContinuationPair> pairs) {
  Divergences d;
  d.p_to_q = Mean(pairs, PToQ, [](const ContinuationPair& pair) { return pair.p_tokens; });
  d.q_to_p = Mean(pairs, QToP, [](const ContinuationPair& pair) { return pair.q_tokens; });
  d.jeffreys = Mean(
      pairs, [](const ContinuationPair& pair) { return PToQ(pair) + QToP(pair); },
      [](const ContinuationPair& pair) { return 0.5 * (pair.p_tokens + pair.q_tokens); });
  return d;
}

}  // namespace sessa
