// Drives a Scheduler step by step, for tests of what it plans.
#pragma once

#include <deque>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "engine/scheduler.h"
#include "gtest/gtest.h"
#include "tests/engine/fake_model.h"

namespace sessa {

// A Scheduler over the fake model on a clock of its own; collects what each request was told and checks the
// order.
class SchedulerHarness {
 public:
  struct Record {
    Request request;
    bool prompted = false, ended = false;
    PromptInfo prompt;
    std::vector<std::vector<int32_t>> tokens;
    std::vector<FinishReason> finish;
    RequestEnd end;
  };

  explicit SchedulerHarness(StateSize state, SchedulerOptions options = {})
      : options_(WithDefaults(options)),
        scheduler_(options_, WithDefaults(state), {FakeModel::kEos}),
        model_(WithDefaults(state)) {}

  static StateSize WithDefaults(StateSize s) {
    if (s.num_pages == 0) s.num_pages = 64 * s.num_ranks;
    return s;
  }
  static SchedulerOptions WithDefaults(SchedulerOptions o) {
    if (o.max_num_seqs == 0) o.max_num_seqs = 256;
    if (o.max_step_tokens == 0) o.max_step_tokens = 512;
    if (o.max_model_len == 0) o.max_model_len = 1000;
    o.target_step_time = absl::InfiniteDuration();
    return o;
  }

  absl::Status Add(RequestId id, std::vector<int32_t> prompt, int max_tokens, Request request = {}) {
    request.prompt = std::move(prompt);
    request.sampling.max_tokens = max_tokens;
    Record record;
    record.request = request;
    record.tokens.resize(request.n);
    record.finish.resize(request.n);
    absl::Status status = scheduler_.Add(id, std::move(request), now_);
    if (status.ok()) records_[id] = std::move(record);
    return status;
  }

  // One step; the plan stays valid for a look until the next. With plans_ahead_ what is committed is the step
  // before, where the scheduler lets it be.
  void Step() {
    now_ += absl::Milliseconds(10);
    scheduler_.Expire(now_, &events_);
    const bool idle = under_way_.empty();
    last_ = {};
    if (idle || scheduler_.CanScheduleAhead()) {
      const bool work = scheduler_.has_work();
      const StepPlan& plan = scheduler_.Schedule(now_);
      if (idle) {
        EXPECT_EQ(plan.num_rows() > 0, work);
      }
      EXPECT_LE(plan.num_rows(), options_.max_step_tokens);
      EXPECT_LE(static_cast<int>(plan.sequences.size()), options_.max_num_seqs);
      last_ = plan;
      if (plan.num_rows() > 0) under_way_.emplace_back(&plan, model_.Execute(plan));
      num_planned_ahead_ += under_way_.size() == 2;
    }
    const bool waits = !plans_ahead_ || !idle || !scheduler_.CanScheduleAhead();
    if (waits && !under_way_.empty()) {
      const auto [plan, results] = std::move(under_way_.front());
      under_way_.pop_front();
      scheduler_.ObserveStep(*plan, absl::Milliseconds(10));  // any step: rows cost nothing, and drafts pay
      scheduler_.Commit(*plan, results, now_, &events_);
    }
    Collect();
  }
  void Abort(const absl::Status& status) {
    under_way_.clear();
    scheduler_.AbortAll(status, now_, &events_);
    Collect();
  }
  void Run() {
    for (int i = 0; scheduler_.has_work() || !under_way_.empty(); ++i) {
      ASSERT_LT(i, 100000);
      Step();
    }
  }
  void Collect() {
    for (SchedulerEvent& event : events_) {
      Record& r = records_.at(event.request_id);
      EXPECT_FALSE(r.ended);
      if (auto* prompt = std::get_if<PromptInfo>(&event.what)) {
        EXPECT_FALSE(r.prompted);
        r.prompted = true;
        r.prompt = *prompt;
      } else if (auto* token = std::get_if<TokenUpdate>(&event.what)) {
        EXPECT_TRUE(r.prompted);
        EXPECT_EQ(r.finish[token->choice], FinishReason::kNone);
        r.tokens[token->choice].push_back(token->token);
        r.finish[token->choice] = token->finish;
      } else {
        r.ended = true;
        r.end = std::get<RequestEnd>(event.what);
      }
    }
    events_.clear();
  }
  // Rows of the last step for a request (its first choice that has any).
  int RowsOf(RequestId id) const {
    int rows = 0;
    for (const PlanSequence& s : last_.sequences) {
      const Sequence* sequence = scheduler_.FindSequence(s.sequence_id);
      if (sequence != nullptr && sequence->request_id == id) rows += s.num_rows;
    }
    return rows;
  }
  void ExpectUndisturbed(RequestId id) const {
    const Record& r = records_.at(id);
    EXPECT_TRUE(r.ended && r.end.status.ok()) << id << ": " << r.end.status;
    for (int c = 0; c < r.request.n; ++c) {
      EXPECT_EQ(r.tokens[c],
                FakeModel::Expected(r.request.prompt, r.request.sampling, c, options_.max_model_len))
          << "request " << id << " choice " << c;
    }
  }

  const SchedulerOptions options_;
  Scheduler scheduler_;
  FakeModel model_;
  absl::Time now_ = absl::UnixEpoch();
  std::map<RequestId, Record> records_;
  std::vector<SchedulerEvent> events_;
  StepPlan last_;
  bool plans_ahead_ = false;
  std::deque<std::pair<const StepPlan*, std::vector<SequenceResult>>> under_way_;
  int num_planned_ahead_ = 0;
};

inline std::vector<int32_t> RandomPrompt(int n, int seed = 0) {
  std::mt19937 rng(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % (FakeModel::kVocab - 1));
  return tokens;
}

inline Request NoEos(int n = 1) {
  Request request;
  request.sampling.ignore_eos = true;
  request.n = n;
  return request;
}

}  // namespace sessa
