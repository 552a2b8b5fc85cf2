// How many rows of prompts a step takes beside its decodes. Bounds the stall that a running stream feels (it
// gets one token a step) and keeps chunks large enough to be efficient. Owned and called by the Scheduler;
// deterministic in its calls and in the cost model.
//
// The limit of a step is the target, or 4/3 of the decodes' own predicted time where that is more: prompts
// get a quarter of the time however many streams run. A chunk that fits the limit is taken whole. Where what
// fits is inefficient (deep in a prompt a block of rows reads the whole past, which costs as much as four
// rows' arithmetic), the step may stretch to 1.5 times the limit, and no such chunk follows until steps below
// the limit have paid the debt: deep prompts then progress every k steps, decode in every one, and the mean
// stays at the limit. Short prompts do not pay for deep ones: what is efficient and fits goes in between.
// Where even one row takes longer than that, a step may take twice as long as with one row, so that every
// prompt ends.
//
// Beside no decode the first prompt of a step may take three times the target: nobody streams whom that could
// stop, and long chunks read the weights less often (prompts of 2048 are taken in a sixth faster in chunks of
// 1024 than of 512). Others join it within the target alone, so that a short prompt does not wait for the
// rows of a long one that it shares a step with.
#pragma once

#include "absl/time/time.h"
#include "engine/cost_model.h"

namespace sessa {

class PrefillBudget {
 public:
  static constexpr int kLeastRows = 16;      // of a chunk that shares a step with another
  static constexpr int kEfficientRows = 64;  // a step is not stretched for more
  static constexpr double kStretch = 1.5;
  static constexpr double kDecodeLimit = 4.0 / 3;  // of the decodes' own time
  static constexpr double kAlone = 3;              // times the target, for a prompt beside no decode

  // The model must live longer.
  PrefillBudget(absl::Duration target, const CostModel* model) : target_(target), model_(*model) {}

  // The decodes are planned, prompts are not.
  void BeginStep(const StepFeatures& decodes);

  // Rows of a prompt with `remaining` rows to compute from position `start` that the step, which has
  // `planned` and room for `room` rows more, has time for. first: no prompt has rows in this step yet. 0: it
  // has to wait; the first one only beside decodes, and, deep in its prompt, until the debt is paid.
  // Requires: room >= 1.
  int Rows(const StepFeatures& planned, int start, int remaining, int room, bool first) const;

  // All is planned.
  void EndStep(const StepFeatures& planned);

  absl::Duration limit() const { return limit_; }

 private:
  int Fit(const StepFeatures& planned, int start, int room, absl::Duration limit) const;
  absl::Duration ChunkTime(const StepFeatures& planned, int start, int rows) const;

  const absl::Duration target_;
  const CostModel& model_;
  bool has_decodes_ = false;
  absl::Duration decode_time_, limit_;  // of this step
  absl::Duration debt_;                 // by which steps before went over their limit
};

}  // namespace sessa
