#include "engine/warm_up.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "engine/page_geometry.h"

namespace sessa {
namespace {

struct Shape {
  int num_decodes, context;  // that many sequences with one row each at this position
  int num_rows, start;       // and a chunk
};

// From cheap to dear. What tells the terms apart: batches beside single rows, chunks of few rows beside whole
// tiles, both near the start of a prompt and far from it, and a step of both kinds as the Scheduler makes
// them. None has more state than 33 pages of 64 tokens: the system zeroes it at the first touch, which took
// as long as the steps.
constexpr Shape kShapes[] = {
    {1, 0, 0, 0},    {4, 64, 0, 0},    {0, 0, 16, 0},    {16, 64, 0, 0},  {0, 0, 64, 0},
    {16, 64, 32, 0}, {0, 0, 16, 1024}, {0, 0, 64, 1024}, {1, 2048, 0, 0},
};
constexpr int kRounds = 2;

// A plan of the shape with pages of its own for each sequence. Without rows when the options rule it out.
class DummyPlan {
 public:
  DummyPlan(const Shape& shape, const SchedulerOptions& o, const StateSize& state)
      : pages_(state), num_slots_(state.num_slots), used_(state.num_ranks) {
    sampling_.temperature = 0;
    bool fits = shape.num_decodes + (shape.num_rows > 0) <= o.max_num_seqs &&
                shape.num_decodes + shape.num_rows <= o.max_step_tokens;
    tokens_.assign(std::max(shape.context + 1, shape.start + shape.num_rows), 0);
    fits = fits && static_cast<int>(tokens_.size()) < o.max_model_len;
    for (int i = 0; fits && i < shape.num_decodes; ++i) fits = Add(shape.context, 1);
    if (fits && shape.num_rows > 0) fits = Add(shape.start, shape.num_rows);
    if (!fits) plan_ = {};
  }
  const StepPlan& plan() const { return plan_; }

 private:
  bool Add(int start, int num_rows) {  // false: there are not enough pages or slots
    const int slot = static_cast<int>(plan_.sequences.size());
    if (num_slots_ > 0 && slot >= num_slots_) return false;
    PlanSequence& s = plan_.sequences.emplace_back();
    s.first_row = plan_.num_rows();
    s.num_rows = num_rows;
    s.start = start;
    for (int i = 0; i < pages_.PagesFor(start + num_rows); ++i) {
      const int c = pages_.ClassOfIndex(i);
      if (used_[c] == pages_.ClassCapacity(c)) return false;
      s.pages.push_back(pages_.FirstOfClass(c) + used_[c]++);
    }
    if (num_slots_ > 0) {
      s.slot = slot;
      s.state_from = start > 0 ? slot : -1;
    }
    s.sample = num_rows == 1;
    s.sampling = &sampling_;
    s.tokens = &tokens_;
    s.prompt_size = 1;
    for (int i = 0; i < num_rows; ++i) {
      plan_.token_ids.push_back(0);
      plan_.positions.push_back(start + i);
    }
    return true;
  }

  const PageGeometry pages_;
  const int num_slots_;
  std::vector<int> used_;  // pages, by class
  SamplingParams sampling_;
  std::vector<int32_t> tokens_;
  StepPlan plan_;
};

}  // namespace

absl::StatusOr<bool> WarmUp::Next(StepRunner run, CostModel* model) {
  constexpr int kNumShapes = std::size(kShapes);
  while (next_ < kRounds * kNumShapes) {
    const DummyPlan dummy(kShapes[next_++ % kNumShapes], options_, state_);
    const StepFeatures features = FeaturesOf(dummy.plan());
    const bool is_first = spent_ == absl::ZeroDuration();  // runs anyway: it warms up
    if (features.rows == 0 || (!is_first && spent_ + model->Predict(features) > budget_)) continue;
    const absl::StatusOr<absl::Duration> took = run(dummy.plan());
    if (!took.ok()) return took.status();
    spent_ += *took;
    if (!is_first) model->Observe(features, *took);  // the first one touches memory for the first time
    return true;
  }
  return false;
}

}  // namespace sessa
