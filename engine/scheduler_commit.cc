// What the results of a step mean, and how sequences and requests end.
#include <algorithm>
#include <utility>

#include "absl/base/macros.h"
#include "absl/strings/str_cat.h"
#include "engine/request_state.h"

namespace sessa {

void Scheduler::Commit(const StepPlan& plan, absl::Span<const SequenceResult> results, absl::Time now,
                       std::vector<SchedulerEvent>* events) {
  ABSL_HARDENING_ASSERT(num_under_way_ > 0 && &plan == &plans_[oldest_] &&
                        results.size() == plan.sequences.size());
  if (--num_under_way_ > 0) oldest_ = 1 - oldest_;
  assumed_ = false;
  ++stats_.num_steps;
  stats_.num_shared_reads += plan.num_shared_reads;
  for (size_t i = 0; i < results.size(); ++i) CommitSequence(plan.sequences[i], results[i], now, events);
}

void Scheduler::CommitSequence(const PlanSequence& planned, const SequenceResult& result, absl::Time now,
                               std::vector<SchedulerEvent>* events) {
  const auto found = sequences_.find(planned.sequence_id);
  if (found == sequences_.end()) return;  // it ended while this was under way
  Sequence* s = found->second;
  RequestState* request = FindRequest(s->request_id);
  // Without what was guessed, or stands for what was not known yet.
  if (planned.sample) s->tokens.resize(planned.start + planned.num_rows - planned.num_drafts);
  const int num_new = AppendSampled(result, s);
  // Rows of wrong drafts, and what stands behind the last token, were for nothing: their state is no prefix
  // of the text, is published to nobody and is overwritten by the next step.
  const int num_accepted = std::max(0, num_new - 1);
  const int num_rows = planned.num_rows - planned.num_drafts + num_accepted;
  const int end = planned.start + num_rows;
  stats_.num_drafts += planned.num_drafts > 0 ? 1 : 0;
  stats_.draft_tokens += planned.num_drafts;
  stats_.accepted_draft_tokens += num_accepted;
  const int recomputed = std::clamp(s->max_computed - planned.start, 0, num_rows);
  stats_.num_recomputed_tokens += recomputed;
  tenants_.Charge(request->tenant, num_rows - recomputed);  // a preemption is not the tenant's doing
  s->max_computed = std::max(s->max_computed, end);
  if (s->status == SequenceStatus::kRunning)
    ledger_.Publish(s, s->tenant->name, end);  // else preempted since
  if (planned.first_logprob_row >= 0) {
    std::vector<TokenLogprobs>& all = request->prompt.logprobs;
    all.insert(all.end(), result.prompt_logprobs.begin(), result.prompt_logprobs.end());
  }
  if (!planned.sample) return;
  if (num_new > 0 && !request->prompt_done) FinishPrompt(request, events);
  stats_.generation_tokens += num_new;
  request->end.num_generated_tokens += num_new;
  if (num_new > 0 && request->end.first_token == absl::InfinitePast()) request->end.first_token = now;
  const FinishReason finish = num_new > 0 ? FinishAfter(*s) : FinishReason::kNone;
  for (int i = 0; i < num_new; ++i) {
    const SampledToken& sampled = result.tokens[i];
    events->push_back({request->id, request->request.sink,
                       TokenUpdate{s->choice, sampled.token, sampled.logprobs,
                                   i + 1 < num_new ? FinishReason::kNone : finish}});
  }
  if (finish == FinishReason::kNone) {
    const bool all = num_new > 0 && num_new == static_cast<int>(result.tokens.size());
    if (!all) EndRequest(request, absl::InternalError("the model's logits are not numbers"), now, events);
    return;
  }
  answer_lengths_.Observe(s->num_generated(), s->max_size - s->prompt_size);
  EndSequence(request, s->choice);
  if (request->num_live == 0) EndRequest(request, absl::OkStatus(), now, events);
}

// Up to the one that ends the sequence, or to one that is none; says how many.
int Scheduler::AppendSampled(const SequenceResult& result, Sequence* s) const {
  const int before = s->num_tokens();
  for (const SampledToken& sampled : result.tokens) {
    if (sampled.token < 0) break;
    s->tokens.push_back(sampled.token);
    if (FinishAfter(*s) != FinishReason::kNone) break;
  }
  return s->num_tokens() - before;
}

FinishReason Scheduler::FinishAfter(const Sequence& s) const {
  const auto holds = [&s](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), s.tokens.back()) != ids.end();
  };
  if (!s.sampling->ignore_eos && holds(eos_token_ids_)) return FinishReason::kStop;
  if (holds(s.sampling->stop_token_ids)) return FinishReason::kStop;
  return s.num_tokens() >= s.max_size ? FinishReason::kLength : FinishReason::kNone;
}

void Scheduler::FinishPrompt(RequestState* request, std::vector<SchedulerEvent>* events) {
  request->prompt_done = true;
  stats_.prompt_tokens += request->prompt.num_tokens;
  events->push_back({request->id, request->request.sink, std::move(request->prompt)});
  for (auto& s : request->choices) {
    if (s != nullptr && s->status == SequenceStatus::kBlocked) Unblock(s.get(), request, /*resumed=*/true);
  }
}

void Scheduler::Unblock(Sequence* s, RequestState* request, bool resumed) {
  s->tokens.reserve(s->max_size);
  s->tokens = request->request.prompt;
  s->resumed = resumed;
  s->status = SequenceStatus::kWaiting;
  waiting_.Push(s);
}

void Scheduler::SetRunning(Sequence* s, bool running) {
  RequestState* request = FindRequest(s->request_id);
  const bool was = request->num_running > 0;
  if (running) {
    s->status = SequenceStatus::kRunning;
    running_.push_back(s);
    ++s->tenant->num_running;
    ++request->num_running;
  } else {
    running_.erase(std::find(running_.begin(), running_.end(), s));
    --request->num_running;
    --s->tenant->num_running;
  }
  const bool is = request->num_running > 0;
  if (was == is) return;
  stats_.num_running += is ? 1 : -1;
  stats_.num_waiting -= is ? 1 : -1;
  const int64_t prompt = static_cast<int64_t>(request->request.prompt.size());
  stats_.waiting_tokens -= is ? prompt : -prompt;
}

void Scheduler::EndSequence(RequestState* request, int choice) {
  Sequence* s = request->choices[choice].get();
  if (s->status == SequenceStatus::kRunning) {
    ledger_.Release(s);
    SetRunning(s, false);
  } else if (s->status == SequenceStatus::kWaiting) {
    waiting_.Remove(s);
  }
  sequences_.erase(s->id);
  request->choices[choice].reset();
  --request->num_live;
}

void Scheduler::EndRequest(RequestState* request, absl::Status status, absl::Time now,
                           std::vector<SchedulerEvent>* events) {
  for (size_t i = 0; i < request->choices.size(); ++i) {
    if (request->choices[i] != nullptr) EndSequence(request, static_cast<int>(i));
  }
  request->end.status = std::move(status);
  request->end.finished = now;
  events->push_back({request->id, request->request.sink, std::move(request->end)});
  --stats_.num_waiting;  // without sequences it waits
  stats_.waiting_tokens -= static_cast<int64_t>(request->request.prompt.size());
  deadlines_.erase({request->request.deadline, request->id});
  tenants_.Leave(request->tenant);
  requests_.erase(request->id);
}

Scheduler::RequestState* Scheduler::FindRequest(RequestId id) const {
  const auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : it->second.get();
}

void Scheduler::Cancel(RequestId id, absl::Time now, std::vector<SchedulerEvent>* events,
                       absl::Status status) {
  if (RequestState* request = FindRequest(id)) EndRequest(request, std::move(status), now, events);
}

void Scheduler::StopChoice(RequestId id, int choice, absl::Time now, std::vector<SchedulerEvent>* events) {
  RequestState* request = FindRequest(id);
  if (request == nullptr || choice < 0 || choice >= static_cast<int>(request->choices.size())) return;
  if (request->choices[choice] == nullptr) return;
  const bool computed_prompt =
      request->choices[choice]->status != SequenceStatus::kBlocked && !request->prompt_done;
  const Sequence& s = *request->choices[choice];
  answer_lengths_.Observe(s.num_generated(), s.max_size - s.prompt_size);
  EndSequence(request, choice);
  if (request->num_live == 0) {
    EndRequest(request, absl::OkStatus(), now, events);
  } else if (computed_prompt) {  // then another has to
    const auto next =
        std::find_if(request->choices.begin(), request->choices.end(), [](auto& s) { return s != nullptr; });
    Unblock(next->get(), request, /*resumed=*/true);
  }
}

void Scheduler::Expire(absl::Time now, std::vector<SchedulerEvent>* events) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Cancel(deadlines_.begin()->second, now, events,
           absl::DeadlineExceededError("the request's deadline has passed"));
  }
}

void Scheduler::AbortAll(const absl::Status& status, absl::Time now, std::vector<SchedulerEvent>* events) {
  num_under_way_ = 0;
  assumed_ = false;
  while (!requests_.empty()) EndRequest(requests_.begin()->second.get(), status, now, events);
}

absl::Time Scheduler::NextDeadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture() : deadlines_.begin()->first;
}

SchedulerStats Scheduler::Stats() const {
  SchedulerStats stats = stats_;
  stats.num_pages = ledger_.geometry().num_pages();
  stats.num_used_pages = ledger_.pool().num_used_pages();
  stats.num_slots = ledger_.slots().num_slots();
  stats.num_used_slots = ledger_.slots().num_in_use();
  stats.num_snapshots = ledger_.slots().num_snapshots();
  stats.num_running_sequences = static_cast<int>(running_.size());
  if (!full_ || waiting_.size() == 0) stats.num_startable = max_running_ - stats.num_running_sequences;
  return stats;
}

const Sequence* Scheduler::FindSequence(uint64_t sequence_id) const {
  const auto it = sequences_.find(sequence_id);
  return it == sequences_.end() ? nullptr : it->second;
}

absl::Status Scheduler::CheckInvariants() const {
  const std::vector<const Sequence*> holders(running_.begin(), running_.end());
  if (absl::Status ledger = ledger_.CheckInvariants(holders); !ledger.ok()) return ledger;
  const PageGeometry& g = ledger_.geometry();
  std::vector<int> reserved(g.num_classes());
  int running = 0, waiting = 0, num_running = 0, num_waiting = 0;
  int64_t waiting_tokens = 0;
  for (const auto& [id, request] : requests_) {
    const auto fail = [id = id](const char* what) {
      return absl::InternalError(absl::StrCat("request ", id, ": ", what));
    };
    int live = 0, live_running = 0;
    for (const auto& s : request->choices) {
      if (s == nullptr) continue;
      ++live;
      if (FindSequence(s->id) != s.get()) return fail("a sequence is not found by its id");
      if (s->status != SequenceStatus::kRunning && (s->held.num_pages() != 0 || s->held.num_computed() != 0))
        return fail("pages without running");
      if (s->status == SequenceStatus::kBlocked && request->prompt_done) return fail("blocked for ever");
      if (s->status == SequenceStatus::kWaiting) {
        ++waiting;
        if (!waiting_.Contains(*s)) return fail("waits, but not in the queue");
      }
      if (s->num_preemptions > options_.max_preemptions) return fail("preempted too often");
      if (s->status != SequenceStatus::kRunning) continue;
      ++live_running;
      for (int c = 0; IsProtected(*s) && c < g.num_classes(); ++c)
        reserved[c] += g.CountOfClass(MaxPages(*s), c);
      if (std::count(running_.begin(), running_.end(), s.get()) != 1)
        return fail("not among the running ones");
      if (s->num_remaining() < 1 || s->num_tokens() > s->max_size)
        return fail("its counts of tokens disagree");
    }
    if (live != request->num_live || live == 0 || live_running != request->num_running)
      return fail("its counts disagree");
    running += live_running;
    if (live_running > 0) {
      ++num_running;
    } else {
      ++num_waiting;
      waiting_tokens += static_cast<int64_t>(request->request.prompt.size());
    }
  }
  for (int c = 0; c < g.num_classes(); ++c) {
    if (reserved[c] > g.ClassCapacity(c))
      return absl::InternalError("protected sequences may run out of pages");
  }
  if (running != static_cast<int>(running_.size()) || waiting != static_cast<int>(waiting_.size()) ||
      num_running != stats_.num_running || num_waiting != stats_.num_waiting ||
      waiting_tokens != stats_.waiting_tokens) {
    return absl::InternalError("the gauges disagree with the live requests");
  }
  return absl::OkStatus();
}

}  // namespace sessa
