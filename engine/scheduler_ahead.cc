// Planning a step while the one before it is under way, so that a device finds its next work waiting. Which
// sequences have rows, where their state goes and who ends by length is known by then; what is not is the
// token that each samples, so a stand-in takes its place until Commit, and the device reads the token where
// it sampled it. Who turns out to have ended, by a stop token, a cancel or its deadline, was planned in vain:
// its pages are free at once all the same, as steps run in order and whoever gets them writes them later.
#include <algorithm>

#include "engine/scheduler.h"

namespace sessa {
namespace {

// Of the time that a step may take, 100 ms by default. What the host does in a step is a tenth of a
// millisecond, which is nothing beside a longer one; and behind it a newcomer would wait for one step more
// than it has to.
constexpr double kShortStep = 1.0 / 5;

}  // namespace

bool Scheduler::NeedsItsTokens(const SamplingParams& p) {
  const bool penalised = p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
  return penalised || p.num_logprobs >= 0 || p.prompt_logprobs;
}

bool Scheduler::CanScheduleAhead() {
  if (num_under_way_ != 1 || assumed_ ||
      cost_model_.Predict(planned_features_) > kShortStep * options_.target_step_time)
    return false;
  const std::vector<PlanSequence>& planned = plans_[oldest_].sequences;
  return std::none_of(planned.begin(), planned.end(),  // how many drafts are right is not known either
                      [](const PlanSequence& p) { return p.num_drafts > 0; }) &&
         std::none_of(running_.begin(), running_.end(),
                      [this](Sequence* s) { return s->needs_its_tokens || MayDraft(s); });
}

// As Commit will find it to be, for all that a plan is made from but the tokens themselves.
void Scheduler::AssumeDone(const StepPlan& plan) {
  int num_sampled = 0;
  for (const PlanSequence& p : plan.sequences) {
    const int32_t token = SampledId(num_sampled);
    num_sampled += p.sample ? 1 : 0;
    const auto found = sequences_.find(p.sequence_id);
    if (found == sequences_.end()) continue;
    ledger_.Advance(found->second, p.start + p.num_rows);
    if (p.sample) found->second->tokens.push_back(token);
  }
}

}  // namespace sessa
