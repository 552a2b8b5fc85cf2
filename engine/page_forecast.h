// How many pages the running sequences will come to hold: each goes on by a token a step to the length that
// answers have lately had, and then gives its pages back. The Scheduler admits by it, so that few sequences
// have to be preempted (look-ahead admission: Gong et al., "Past-Future Scheduler for LLM Serving under SLA
// Guarantees", ASPLOS 2025). A forecast only: a wrong one costs time, never a page. Not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace sessa {

// Which share of their max_tokens answers really have: the mean over the last ~64, weighted by max_tokens.
class AnswerLengths {
 public:
  void Observe(int num_generated, int max_tokens);
  // Tokens still to come of an answer that has `num_generated`. The share is taken of what is left, not of
  // the whole: ends are about as likely after a long answer as after a short one.
  int ExpectedRemaining(int num_generated, int max_tokens) const;

 private:
  double generated_ = 0, allowed_ = 0;  // forgetting sums
};

// One sequence as the forecast sees it.
struct PageDemand {
  int num_held = 0;    // pages
  int num_own = 0;     // of those, the ones that are free when it ends; the others are shared
  int num_cached = 0;  // tokens that need state once its prompt is computed
  int remaining = 0;   // tokens that it will generate
};

// The most pages, beyond those held, that all of them need at one time. O(n^2), n the number of demands,
// which are reordered; 256 take 0.1 ms.
int PeakGrowth(absl::Span<PageDemand> demands, int page_size);

}  // namespace sessa
