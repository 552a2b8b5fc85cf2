// Several tokens a step: which sequences bring drafts, and how many. Drafts come last into a step, into what
// decodes and prompts left of its time and rows, and take no page that anybody else could need.
#include <algorithm>

#include "engine/scheduler.h"

namespace sessa {
namespace {

// A row takes this share of a step at least, whatever the cost model thinks: sampling it, and the risk of a
// model that has not seen such steps yet.
constexpr double kLeastCost = 0.04;

}  // namespace

void Scheduler::PlanDrafts() {
  for (Sequence* s : planned_) {
    if (s->max_drafts == 0 || s->planned_rows != 1 || s->num_remaining() != 1 || s->tokens.back() < 0)
      continue;  // not its turn, or its newest token is not known yet
    s->drafter.Observe(s->tokens, s->prompt_size);
    const int most = std::min(
        {s->max_drafts, s->max_size - s->num_tokens() - 1, options_.max_step_tokens - planned_rows_});
    drafts_.clear();
    if (most > 0) s->drafter.Draft(s->tokens, most, &drafts_);
    const int num = PagesForDrafts(s, DraftsThatPay(*s, static_cast<int>(drafts_.size())));
    if (num == 0) continue;
    s->tokens.insert(s->tokens.end(), drafts_.begin(), drafts_.begin() + num);
    s->num_drafts = num;
    s->planned_rows += num;
    planned_rows_ += num;
    planned_features_.LengthenDecode(s->held.num_computed(), num);
  }
}

// Whether, as its text stands, drafts are likely to pay in the next step, if its newest token is known then.
bool Scheduler::MayDraft(Sequence* s) {
  if (s->max_drafts == 0 || s->num_tokens() <= s->prompt_size) return false;
  s->drafter.Observe(s->tokens, s->prompt_size);
  drafts_.clear();
  s->drafter.Draft(s->tokens, s->max_drafts, &drafts_);
  return DraftsThatPay(*s, static_cast<int>(drafts_.size())) > 0;
}

// So many as give the most tokens a second: each draft makes the step longer, for all that are in it.
int Scheduler::DraftsThatPay(const Sequence& s, int most) const {
  const double streams = static_cast<double>(planned_.size());
  const absl::Duration without = cost_model_.Predict(planned_features_);
  double tokens = streams, chance = 1, best = streams / absl::ToDoubleSeconds(without);
  int num = 0;
  for (int i = 1; i <= most; ++i) {
    StepFeatures with = planned_features_;
    with.LengthenDecode(s.held.num_computed(), i);
    const absl::Duration time = std::max(cost_model_.Predict(with), (1 + kLeastCost * i) * without);
    if (time > budget_.limit()) break;
    chance *= s.drafter.Chance(i - 1);
    tokens += chance;
    const double rate = tokens / absl::ToDoubleSeconds(time);
    if (rate > best) best = rate, num = i;
  }
  return num;
}

// Of the drafts wanted those that have pages: one more page where all that run could have another too.
int Scheduler::PagesForDrafts(Sequence* s, int num) {
  const int next_class = ledger_.geometry().ClassOfIndex(s->held.num_pages());
  if (ledger_.RoomFor(*s) < 1 + num && !preempted_ &&
      ledger_.pool().class_free(next_class) > static_cast<int>(running_.size()))
    ledger_.Grow(s);
  return std::min(num, ledger_.RoomFor(*s) - 1);
}

}  // namespace sessa
