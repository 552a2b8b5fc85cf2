// Decides what each step computes and what its results mean: owns every Sequence, the waiting queue and the
// StateLedger. Continuous batching in three calls: Schedule builds a StepPlan, the engine executes it, Commit
// books the results and says what happened as events. A step may be planned while the one before it is under
// way (scheduler_ahead.cc). It reads no clock, calls no sink and is deterministic in its calls, but for chunk
// sizes when ObserveStep is fed with measured times; results do not depend on chunking (the kernels give the
// same bits).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/cost_model.h"
#include "engine/page_forecast.h"
#include "engine/prefill_budget.h"
#include "engine/request.h"
#include "engine/scheduler_options.h"
#include "engine/scheduler_stats.h"
#include "engine/sequence.h"
#include "engine/state_ledger.h"
#include "engine/step_plan.h"
#include "engine/waiting_queue.h"
#include "kernels/shared_reads.h"

namespace sessa {

// Something to tell a request's sink. For each request: PromptInfo at most once, before its first token;
// tokens in order; RequestEnd exactly once and last. Holds the sink, as the request itself may be gone.
struct SchedulerEvent {
  RequestId request_id = 0;
  std::shared_ptr<TokenSink> sink;
  std::variant<PromptInfo, TokenUpdate, RequestEnd> what;
};

// Rules of a step. (1) Every running sequence that is one token behind gets its row, oldest first. (2) What
// is left of max_step_tokens and of the step's time (prefill_budget.h) goes to prompts, begun or waiting,
// several a step: the shortest first, but after kMaxOvertakes steps in which the one that age puts first got
// nothing, that one, or nobody until its time has come. So short prompts do not wait for long ones, and a
// long one has a quarter of the steps with prompt rows at least. Both orders are of waiting_queue.h, and keep
// priorities and tenants apart. (3) Waiting sequences are admitted while their tokens (less the prefix hit)
// and one page more fit beside what the running ones need for theirs now, and while all of them, as
// page_forecast.h expects them to grow and end, fit later, and while a token of each running sequence leaves
// time in the step (BatchIsFull); the first that does not fit stops admission, so that a large one is not
// passed over for ever. (4) What is left then goes to drafts of the sequences of (1), by which a step gives
// them several tokens: so many as by each sequence's own luck so far (ngram_drafter.h) and the cost model
// make the tokens a second more, which may be none. Every draft's successor is sampled as it would be without
// drafts, and what follows a wrong draft is dropped, so the tokens are the same ones. Recurrent state cannot
// be taken back by a few tokens: there are no drafts with slots.
//
// When no more sequences may run and none of a tenant does, it gets the place of one of the tenant that has
// the most, if that has two and was served more: its last in the order below is preempted, where the pages
// suffice for both. So nobody is kept out by others' long answers, and what was preempted finds most of its
// pages again.
//
// When a page is missing, the newest running sequence is preempted, or of its tenant's the one of the lowest
// priority (OrderRunning): its pages are freed, it waits in front and recomputes, with the tokens it had. A
// sequence gives way only to those before it in that order; where it is itself the last, it skips the step
// instead. After max_preemptions it is protected: never preempted again.
//
// Why this cannot lock up. Let need(s) be the pages, by class, of s at its maximal length. (a) Add refuses s
// when need(s) exceeds the pool. (b) A sequence becomes protected while it waits, and protected ones are
// admitted only while the sum of need over the protected running ones, with it, is within the pool. So once
// all unprotected ones are preempted, each protected one finds its pages. (c) Order running sequences:
// protected first, the rest does not matter. The first one always gets a page: if protected by (b), else all
// others are preemptible and by (a) it fits alone. (Slots: no more sequences run than there are slots, so one
// that waits for a slot waits for a snapshot which a running one starts from.) So every step with work
// computes at least one row; preemptions are bounded; hence everything ends. With nothing running, (a) and
// (b) admit the first waiting one.
//
// n > 1: one choice computes the prompt, the others wait for it and then find its full pages in the prefix
// index (without prefix caching they compute it themselves).
class Scheduler {
 public:
  static constexpr int kMaxOvertakes = 3;

  // Requires: the options' limits are >= 1, max_model_len >= 2, max_preemptions >= 0; what PageGeometry does.
  Scheduler(const SchedulerOptions& options, const StateSize& state, std::vector<int32_t> eos_token_ids);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Whether the request could ever run: OUT_OF_RANGE for a prompt of max_model_len or more,
  // RESOURCE_EXHAUSTED when one of its sequences could not have its pages even alone. Reads constants only:
  // any thread may call it at any time.
  absl::Status CheckFits(const Request& request) const;

  // Takes the request in; `now` is its arrival. On error nothing has changed, there will be no event, and the
  // caller tells the sink. The errors of CheckFits; INVALID_ARGUMENT, ALREADY_EXISTS (id): values that
  // Engine::Submit should have refused, as it does when the queue is full.
  absl::Status Add(RequestId id, Request request, absl::Time now);

  // The next step; without rows when there is nothing to run. A plan with rows is under way until its Commit
  // or AbortAll, and valid so long; one without until the next call. Requires: none is under way, or
  // CanScheduleAhead().
  const StepPlan& Schedule(absl::Time now);
  // Whether the step behind the one under way can be planned before its tokens are known, and is worth it.
  // Its inputs that are not known are then named by their place among what the other samples (SampledId).
  // What is planned for a sequence that turns out to have ended is computed in vain: Commit drops it.
  // Requires: whoever executes plans does so in the order in which they were scheduled.
  bool CanScheduleAhead();

  // Books the results of the oldest plan under way. Appends to `events` (not null, as everywhere below). A
  // missing token where one was to be sampled ends the request with INTERNAL. Requires: one result for each
  // sequence.
  void Commit(const StepPlan& plan, absl::Span<const SequenceResult> results, absl::Time now,
              std::vector<SchedulerEvent>* events);

  // How long the plan will take, as predicted.
  absl::Duration PredictStep(const StepPlan& plan) const { return cost_model_.Predict(FeaturesOf(plan)); }
  // How long it took; call before its Commit. Optional: without it predictions stay as the warm-up left them.
  void ObserveStep(const StepPlan& plan, absl::Duration duration) {
    cost_model_.Observe(FeaturesOf(plan), duration);
  }

  // At any time. Pages are free at once, for steps scheduled from then on. Unknown and ended ids and choices
  // are ignored.
  void Cancel(RequestId id, absl::Time now, std::vector<SchedulerEvent>* events,
              absl::Status status = absl::CancelledError("the request was cancelled"));
  void StopChoice(RequestId id, int choice, absl::Time now,
                  std::vector<SchedulerEvent>* events);  // no token event
  // Ends what has reached its deadline with DEADLINE_EXCEEDED.
  void Expire(absl::Time now, std::vector<SchedulerEvent>* events);

  // Ends all requests with `status`, in the order of their ids; drops the plans under way: they are not to
  // be committed. At any time.
  void AbortAll(const absl::Status& status, absl::Time now, std::vector<SchedulerEvent>* events);

  bool has_work() const { return !requests_.empty(); }  // then Schedule gives rows, where none is under way
  absl::Time NextDeadline() const;                      // InfiniteFuture when none
  SchedulerStats Stats() const;
  PagePool* mutable_pool_for_testing() { return ledger_.mutable_pool_for_testing(); }
  const CostModel& cost_model() const { return cost_model_; }
  CostModel* mutable_cost_model() { return &cost_model_; }  // for the warm-up, before the first Schedule
  const AnswerLengths& answer_lengths() const { return answer_lengths_; }
  // The live sequence, or null. For tests.
  const Sequence* FindSequence(uint64_t sequence_id) const;

  // INTERNAL, saying what, when the bookkeeping contradicts itself, the ledger's included. For tests:
  // O(everything).
  absl::Status CheckInvariants() const;

 private:
  struct RequestState;

  // scheduler.cc: building a plan
  bool IsProtected(const Sequence& s) const { return s.num_preemptions >= options_.max_preemptions; }
  // The order of (c) above into running_ and each one's place: protected ones, then by age; but a tenant's
  // sequences share out the places that their ages give the tenant by priority. So priority moves a tenant's
  // sequences among themselves, and never past another tenant's.
  void OrderRunning();
  int MaxTokensInCache(const Sequence& s) const {
    return s.max_size - 1;
  }  // the last token's state is never needed
  void PlanDecodes();
  void FindSharedReads();  // of the decodes
  void PlanPrefills(absl::Time now);
  const Sequence* AgedHead() const;
  void PlanPrefillsInOrder(PrefillOrder order, absl::Time now);
  int PrefillRows(const Sequence& s, bool first) const;  // that the step has room and time for
  bool MayStartAnother() const;
  Sequence* WhoMakesRoom(const Sequence& for_whom) const;  // null: nobody does
  bool TryAdmit(Sequence* s, absl::Time now);
  bool BatchIsFull() const;
  bool FitsBesideRunning(const Sequence& s) const;
  bool WillFitBesideRunning(const Sequence& s) const;
  PageDemand DemandOf(const Sequence& s) const;
  int MaxPages(const Sequence& s) const { return ledger_.geometry().PagesFor(MaxTokensInCache(s)); }
  int GrowPages(Sequence* s, int num_rows);  // rows, of those wanted, that have pages now; may preempt
  Sequence* Victim(const Sequence& for_whom) const;  // null: nobody gives way
  void Preempt(Sequence* s);
  void PlanRows(Sequence* s, int num_rows);
  void EmitPlan(StepPlan* plan);

  // scheduler_drafts.cc
  void PlanDrafts();
  bool MayDraft(Sequence* s);
  int DraftsThatPay(const Sequence& s, int most) const;
  int PagesForDrafts(Sequence* s, int num);

  // scheduler_ahead.cc
  StepPlan& NextPlan() { return plans_[(oldest_ + num_under_way_) % 2]; }
  static bool NeedsItsTokens(const SamplingParams& sampling);
  void AssumeDone(const StepPlan& plan);

  // scheduler_commit.cc: what results mean
  RequestState* FindRequest(RequestId id) const;
  void CommitSequence(const PlanSequence& planned, const SequenceResult& result, absl::Time now,
                      std::vector<SchedulerEvent>* events);
  int AppendSampled(const SequenceResult& result, Sequence* s) const;
  FinishReason FinishAfter(const Sequence& s) const;
  void FinishPrompt(RequestState* request, std::vector<SchedulerEvent>* events);
  void Unblock(Sequence* s, RequestState* request, bool resumed);
  void SetRunning(Sequence* s, bool running);  // status, running_ and the counts of requests
  void EndSequence(RequestState* request, int choice);
  void EndRequest(RequestState* request, absl::Status status, absl::Time now,
                  std::vector<SchedulerEvent>* events);

  const SchedulerOptions options_;
  const std::vector<int32_t> eos_token_ids_;
  const int max_running_;  // max_num_seqs, but so that all decode and a chunk of some rows fit a step, and
                           // each has a slot
  const bool shares_reads_;
  StateLedger ledger_;
  CostModel cost_model_;
  PrefillBudget budget_;
  int num_overtakes_ = 0;  // steps in a row in which others than the AgedHead got the prompt rows
  AnswerLengths answer_lengths_;
  TenantLedger tenants_;
  WaitingQueue waiting_;
  std::map<RequestId, std::unique_ptr<RequestState>> requests_;
  absl::flat_hash_map<uint64_t, Sequence*> sequences_;  // live ones by id
  std::vector<Sequence*> running_;
  std::set<std::pair<absl::Time, RequestId>> deadlines_;  // finite ones
  uint64_t next_sequence_id_ = 1;

  StepPlan plans_[2];  // of up to two steps: under way, or being built
  int oldest_ = 0;     // of those under way
  int num_under_way_ = 0;
  bool assumed_ = false;            // the oldest's sequences stand where they will once it is done
  std::vector<Sequence*> planned_;  // in plan order; those preempted since have planned_rows 0
  StepFeatures planned_features_;   // of the plan scheduled last
  SharedReads shared_reads_;
  int64_t num_shared_reads_ = 0;
  std::vector<RowSpan> decodes_;  // scratch of FindSharedReads
  std::vector<int32_t> drafts_;   // scratch of PlanDrafts
  int planned_rows_ = 0;
  bool preempted_ = false;  // in this Schedule: what gave its pages away must not take them back at once
  bool full_ = false;       // the last one that was to start did not fit

  SchedulerStats stats_;  // the gauges of pages are filled in by Stats()
};

}  // namespace sessa
