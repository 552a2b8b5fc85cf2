// How far apart what a model writes after one text is from what it writes after another: Monte Carlo estimates
// of the divergences between the two distributions over continuations. The distance is Jeffreys', as in Liu
// and Soatto, "Conjuring Semantic Similarity" (arXiv 2410.16431), there over images; over continuations of
// texts in Liu et al., arXiv 2310.18348. Pure; called by Similarity.
#pragma once

#include <vector>

#include "absl/types/span.h"

namespace sessa {

// A mean over independent samples with its standard error, in nats; and both for one token: divided by the
// mean number of tokens of a continuation, as a ratio estimate.
struct Estimate {
  double value = 0, standard_error = 0;
  double per_token = 0, standard_error_per_token = 0;
};

// One drawn continuation of each of two texts, P and Q: log-probabilities of the whole continuation in nats.
struct ContinuationPair {
  double p_under_p = 0, p_under_q = 0;  // of the one drawn after P
  double q_under_q = 0, q_under_p = 0;  // of the one drawn after Q
  int p_tokens = 0, q_tokens = 0;
};

struct Divergences {
  Estimate p_to_q, q_to_p;  // KL(P || Q), KL(Q || P)
  Estimate jeffreys;        // their sum
};

// The two continuations of a pair may depend on one another (drawn with the same random numbers), pairs must
// not. Requires: at least two pairs, each continuation of at least one token.
Divergences EstimateDivergences(absl::Span<const ContinuationPair> pairs);

}  // namespace sessa
