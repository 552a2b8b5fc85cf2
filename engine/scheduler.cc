// Building a plan; what its results mean is in scheduler_commit.cc.
#include "engine/scheduler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/base/macros.h"
#include "absl/strings/str_cat.h"
#include "engine/request_state.h"

namespace sessa {
namespace {

int MaxRunning(const SchedulerOptions& o, int num_slots) {
  const int chunk = std::clamp(o.max_step_tokens / 2, 1, PrefillBudget::kLeastRows);
  const int most = num_slots > 0 ? std::min(o.max_num_seqs, num_slots) : o.max_num_seqs;
  return std::clamp(o.max_step_tokens - chunk, 1, most);
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, const StateSize& state,
                     std::vector<int32_t> eos_token_ids)
    : options_(options),
      eos_token_ids_(std::move(eos_token_ids)),
      max_running_(MaxRunning(options, state.num_slots)),
      shares_reads_(state.shares_reads),
      ledger_(PageGeometry(state), state.num_slots, options.enable_prefix_caching,
              options.cache_observer.get()),
      budget_(options.target_step_time, &cost_model_) {
  ABSL_HARDENING_ASSERT(options.max_model_len >= 2 && options.max_num_seqs >= 1 &&
                        options.max_step_tokens >= 1);
}

Scheduler::~Scheduler() = default;

absl::Status Scheduler::CheckFits(const Request& request) const {
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt >= options_.max_model_len) {
    return absl::OutOfRangeError(absl::StrCat("the prompt has ", prompt,
                                              " tokens; prompt and answer together have at most ",
                                              options_.max_model_len));
  }
  const int64_t longest = std::min<int64_t>(prompt + request.sampling.max_tokens, options_.max_model_len);
  const absl::Status fits = ledger_.CheckFits(static_cast<int>(longest) - 1);
  if (fits.ok()) return fits;
  return absl::ResourceExhaustedError(
      absl::StrCat("prompt and max_tokens come to ", longest, " tokens; ", fits.message()));
}

absl::Status Scheduler::Add(RequestId id, Request request, absl::Time now) {
  if (request.prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
  if (request.n < 1) return absl::InvalidArgumentError("n must be at least 1");
  if (request.tenant_weight < 1) return absl::InvalidArgumentError("tenant_weight must be at least 1");
  if (request.sampling.max_tokens < 1) return absl::InvalidArgumentError("max_tokens must be at least 1");
  if (requests_.contains(id)) return absl::AlreadyExistsError(absl::StrCat("request ", id, " is alive"));
  if (absl::Status fits = CheckFits(request); !fits.ok()) return fits;

  auto state = std::make_unique<RequestState>();
  state->id = id;
  state->request = std::move(request);
  state->tenant = tenants_.Arrive(state->request.tenant, state->request.tenant_weight);
  state->end.arrival = now;
  state->end.scheduled = state->end.first_token = absl::InfinitePast();
  state->prompt.num_tokens = static_cast<int>(state->request.prompt.size());
  const Request& r = state->request;
  for (int i = 0; i < r.n; ++i) {
    auto s = std::make_unique<Sequence>();
    s->id = next_sequence_id_++;
    s->request_id = id;
    s->choice = i;
    s->priority = r.priority;
    s->tenant = state->tenant;
    s->sampling = &r.sampling;
    s->needs_its_tokens = NeedsItsTokens(r.sampling);
    s->seed = r.sampling.seed + static_cast<uint64_t>(i);
    s->arrival = now;
    s->prompt_size = state->prompt.num_tokens;
    s->max_size = static_cast<int>(std::min<int64_t>(
        static_cast<int64_t>(s->prompt_size) + r.sampling.max_tokens, options_.max_model_len));
    if (ledger_.slots().num_slots() == 0) {
      s->max_drafts =
          r.num_speculative_tokens < 0 ? options_.num_speculative_tokens : r.num_speculative_tokens;
    }
    sequences_[s->id] = s.get();
    state->choices.push_back(std::move(s));
  }
  state->num_live = r.n;
  if (r.deadline != absl::InfiniteFuture()) deadlines_.insert({r.deadline, id});
  ++stats_.num_waiting;
  stats_.waiting_tokens += state->prompt.num_tokens;
  Unblock(state->choices[0].get(), state.get(), /*resumed=*/false);
  requests_.emplace(id, std::move(state));
  return absl::OkStatus();
}

const StepPlan& Scheduler::Schedule(absl::Time now) {
  ABSL_HARDENING_ASSERT(num_under_way_ <= 1);
  if (num_under_way_ == 1 && !std::exchange(assumed_, true)) AssumeDone(plans_[oldest_]);
  planned_.clear();
  planned_features_ = {};
  planned_rows_ = 0;
  preempted_ = false;
  OrderRunning();
  PlanDecodes();
  FindSharedReads();
  budget_.BeginStep(planned_features_);
  PlanPrefills(now);
  PlanDrafts();
  budget_.EndStep(planned_features_);
  StepPlan& plan = NextPlan();
  EmitPlan(&plan);
  num_under_way_ += plan.num_rows() > 0 ? 1 : 0;
  return plan;
}

void Scheduler::OrderRunning() {
  const auto older = [this](const Sequence* a, const Sequence* b) {
    return std::tuple(!IsProtected(*a), a->id) < std::tuple(!IsProtected(*b), b->id);
  };
  // From step to step they mostly are.
  if (!std::is_sorted(running_.begin(), running_.end(), older))
    std::sort(running_.begin(), running_.end(), older);
  const auto group = [this](const Sequence* s) { return std::pair(s->tenant->number, !IsProtected(*s)); };
  const bool equal = std::all_of(running_.begin(), running_.end(), [this](const Sequence* s) {
    return s->priority == running_.front()->priority;
  });
  if (!equal) {  // both below are in the order of groups: the i-th most urgent takes the i-th place
    std::vector<Sequence*> urgent = running_, ordered(running_.size());
    std::stable_sort(urgent.begin(), urgent.end(), [&](const Sequence* a, const Sequence* b) {
      return std::pair(group(a), a->priority) < std::pair(group(b), b->priority);
    });
    std::vector<size_t> places(running_.size());
    std::iota(places.begin(), places.end(), 0);
    std::stable_sort(places.begin(), places.end(),
                     [&](size_t a, size_t b) { return group(running_[a]) < group(running_[b]); });
    for (size_t i = 0; i < urgent.size(); ++i) ordered[places[i]] = urgent[i];
    running_ = std::move(ordered);
  }
  for (size_t i = 0; i < running_.size(); ++i) running_[i]->place = static_cast<int>(i);
}

void Scheduler::PlanDecodes() {
  const std::vector<Sequence*> running = running_;  // preemption takes from running_
  for (Sequence* s : running) {
    // With its last token under way it has no more to compute.
    const bool decodes = s->num_remaining() == 1 && s->num_tokens() < s->max_size;
    if (s->status == SequenceStatus::kRunning && decodes && GrowPages(s, 1) == 1) PlanRows(s, 1);
  }
}

int Scheduler::PrefillRows(const Sequence& s, bool first) const {
  return budget_.Rows(planned_features_, s.held.num_computed(), s.num_remaining(),
                      options_.max_step_tokens - planned_rows_, first);
}

// Whom age puts first among the prompts, begun or waiting. Null: there are none.
const Sequence* Scheduler::AgedHead() const {
  const Sequence* head = waiting_.Front(PrefillOrder::kAged);
  for (const Sequence* s : running_) {
    if (s->num_remaining() > 1 &&
        (head == nullptr || RankOf(*s, PrefillOrder::kAged) < RankOf(*head, PrefillOrder::kAged)))
      head = s;
  }
  return head;
}

void Scheduler::PlanPrefills(absl::Time now) {
  const Sequence* head = AgedHead();
  if (head == nullptr) return;
  const size_t num_decodes = planned_.size();
  PlanPrefillsInOrder(num_overtakes_ < kMaxOvertakes ? PrefillOrder::kShortest : PrefillOrder::kAged, now);
  if (head->planned_rows > 0) {
    num_overtakes_ = 0;
  } else if (planned_.size() > num_decodes) {
    ++num_overtakes_;
  }
}

void Scheduler::PlanPrefillsInOrder(PrefillOrder order, absl::Time now) {
  std::vector<std::pair<PrefillRank, Sequence*>> begun;
  for (Sequence* s : running_) {
    if (s->num_remaining() > 1) begun.emplace_back(RankOf(*s, order), s);
  }
  std::sort(begun.begin(), begun.end());
  bool first = true, admitting = true;
  for (auto next = begun.begin(); planned_rows_ < options_.max_step_tokens;) {
    Sequence* waiting =
        admitting && !preempted_ ? waiting_.Front(order, /*only_idle_tenants=*/!MayStartAnother()) : nullptr;
    Sequence* s = waiting;
    if (next != begun.end() && (waiting == nullptr || next->first < RankOf(*waiting, order)))
      s = (next++)->second;
    if (s == nullptr) return;
    if (s != waiting && s->status != SequenceStatus::kRunning) continue;  // preempted for one before it
    if (PrefillRows(*s, first) == 0) {
      if (order == PrefillOrder::kAged) return;  // nobody passes until it is paid for
      if (s == waiting) admitting = false;
      continue;
    }
    if (s == waiting && !TryAdmit(s, now)) {
      admitting = false;
      continue;
    }
    const int rows = GrowPages(s, PrefillRows(*s, first));  // anew: a prefix hit has changed what is left
    if (rows == 0) continue;
    PlanRows(s, rows);
    first = false;
  }
}

bool Scheduler::MayStartAnother() const {
  return static_cast<int>(running_.size()) < max_running_ && !BatchIsFull();
}

Sequence* Scheduler::WhoMakesRoom(const Sequence& for_whom) const {
  if (for_whom.tenant->num_running > 0) return nullptr;
  Sequence* last = nullptr;
  for (Sequence* r : running_) {
    if (IsProtected(*r) || r->tenant->num_running < 2 || r->tenant->counter <= for_whom.tenant->counter)
      continue;
    if (last == nullptr ||
        std::pair(last->tenant->num_running, last->place) < std::pair(r->tenant->num_running, r->place))
      last = r;
  }
  return last;
}

bool Scheduler::TryAdmit(Sequence* s, absl::Time now) {
  full_ = true;
  Sequence* gives_way = nullptr;
  if (!MayStartAnother() && (gives_way = WhoMakesRoom(*s)) == nullptr) return false;
  RequestState* request = FindRequest(s->request_id);
  int num_cachable = s->num_tokens() - 1;  // the last token's row is always computed: it gives the next token
  if (request->NeedsPromptRows()) num_cachable = std::min(num_cachable, request->FirstLogprobRow());
  ledger_.Find(s, s->tenant->name, num_cachable);
  if (!FitsBesideRunning(*s) || !WillFitBesideRunning(*s) ||
      (gives_way == nullptr && !ledger_.HasSlotFor(*s))) {
    ledger_.Release(s);
    return false;
  }
  full_ = gives_way != nullptr;
  if (gives_way != nullptr) Preempt(gives_way);
  ledger_.Admit(s);
  waiting_.Remove(s);
  SetRunning(s, true);
  OrderRunning();
  const int num_hit = s->held.num_computed();
  s->max_computed = std::max(s->max_computed, num_hit);
  if (request->end.scheduled == absl::InfinitePast()) request->end.scheduled = now;
  if (!request->looked_up && options_.enable_prefix_caching) {
    request->looked_up = true;
    request->prompt.num_cached_tokens = num_hit;
    stats_.prefix_cache_queries += s->num_tokens();
    stats_.prefix_cache_hits += num_hit;
  }
  return true;
}

// Once a token of each running sequence fills the step, another would make every stream slower than asked
// for; but not below four times a sequence's own time: by then batching has given three quarters of what it
// can. Their contexts do not count, or one long document would keep everybody out until its answer has ended.
bool Scheduler::BatchIsFull() const {
  StepFeatures one, all;
  one.rows = 1;
  all.rows = static_cast<int64_t>(running_.size());
  return cost_model_.Predict(all) > std::max(options_.target_step_time, 4 * cost_model_.Predict(one));
}

// `s` holds its prefix hit already. Rule (3) for now, and rule (b) of the header, for each class of pages.
bool Scheduler::FitsBesideRunning(const Sequence& s) const {
  const PageGeometry& g = ledger_.geometry();
  const int wanted = std::min(g.PagesFor(s.num_tokens()) + 1, MaxPages(s));
  for (int c = 0; c < g.num_classes(); ++c) {
    int needed = g.CountOfClass(wanted, c) - g.CountOfClass(s.held.num_pages(), c);
    int reserved = g.CountOfClass(MaxPages(s), c);
    for (const Sequence* r : running_) {
      const int r_held = r->held.num_pages(), r_wanted = std::max(r_held, g.PagesFor(r->num_tokens()));
      needed += g.CountOfClass(r_wanted, c) - g.CountOfClass(r_held, c);
      if (IsProtected(*r)) reserved += g.CountOfClass(MaxPages(*r), c);
    }
    if (needed > ledger_.pool().class_free(c)) return false;
    if (IsProtected(s) && reserved > g.ClassCapacity(c)) return false;
  }
  return true;
}

// Rule (3) for later. Alone it always fits, as expected lengths are at most the longest.
bool Scheduler::WillFitBesideRunning(const Sequence& s) const {
  std::vector<PageDemand> demands = {DemandOf(s)};
  const int free = ledger_.geometry().num_pages() - ledger_.pool().num_used_pages();
  for (const Sequence* r : running_) demands.push_back(DemandOf(*r));
  return PeakGrowth(absl::MakeSpan(demands), ledger_.geometry().page_size()) <= free;
}

PageDemand Scheduler::DemandOf(const Sequence& s) const {
  return {s.held.num_pages(), ledger_.NumOwnPages(s), s.num_tokens() - 1,
          answer_lengths_.ExpectedRemaining(s.num_generated(), s.max_size - s.prompt_size)};
}

// Others are preempted for the first missing page only: a chunk may as well be shorter.
int Scheduler::GrowPages(Sequence* s, int num_rows) {
  while (ledger_.RoomFor(*s) < num_rows) {
    bool grown = ledger_.Grow(s);
    while (!grown && ledger_.RoomFor(*s) == 0) {
      Sequence* victim = Victim(*s);
      if (victim == nullptr) break;
      Preempt(victim);
      grown = ledger_.Grow(s);
    }
    if (!grown) break;
  }
  return std::min(num_rows, ledger_.RoomFor(*s));
}

Sequence* Scheduler::Victim(const Sequence& for_whom) const {
  Sequence* last = nullptr;
  for (Sequence* r : running_) {
    if (!IsProtected(*r) && for_whom.place < r->place && (last == nullptr || last->place < r->place))
      last = r;
  }
  return last;
}

void Scheduler::Preempt(Sequence* s) {
  preempted_ = true;
  planned_rows_ -= s->planned_rows;  // its share of planned_features_ stays: the step is a little shorter
  s->planned_rows = 0;
  ledger_.Release(s);
  SetRunning(s, false);
  ++s->num_preemptions;
  ++stats_.num_preemptions;
  ++FindRequest(s->request_id)->end.num_preemptions;
  s->resumed = true;
  s->status = SequenceStatus::kWaiting;
  waiting_.Push(s);
}

void Scheduler::PlanRows(Sequence* s, int num_rows) {
  s->planned_rows = num_rows;
  planned_.push_back(s);
  planned_rows_ += num_rows;
  if (num_rows == 1) {
    planned_features_.AddDecode(s->held.num_computed());
  } else {
    planned_features_.AddPrefill(s->held.num_computed(), num_rows);
  }
}

void Scheduler::FindSharedReads() {
  num_shared_reads_ = 0;
  if (!shares_reads_) return;
  decodes_.clear();
  for (const Sequence* s : planned_) {
    if (s->planned_rows > 0) decodes_.push_back({0, 1, s->held.num_computed(), s->held.pages()});
  }
  shared_reads_.Find(decodes_, ledger_.geometry().page_size());
  num_shared_reads_ = shared_reads_.num_saved_tokens();
  planned_features_.reads -= num_shared_reads_;
}

void Scheduler::EmitPlan(StepPlan* plan) {
  plan->num_shared_reads = num_shared_reads_;
  plan->token_ids.clear();
  plan->positions.clear();
  std::erase_if(planned_, [](const Sequence* s) { return s->planned_rows == 0; });
  plan->sequences.resize(planned_.size());
  for (size_t i = 0; i < planned_.size(); ++i) {
    Sequence* s = planned_[i];
    PlanSequence& p = plan->sequences[i];
    p.sequence_id = s->id;
    p.first_row = plan->num_rows();
    p.num_rows = std::exchange(s->planned_rows, 0);
    ledger_.Plan(s, p.num_rows, &p);
    p.sample = p.start + p.num_rows == s->num_tokens();
    p.num_drafts = std::exchange(s->num_drafts, 0);
    p.first_logprob_row = -1;
    p.sampling = s->sampling;
    p.tokens = &s->tokens;
    p.prompt_size = s->prompt_size;
    p.seed = s->seed;
    if (p.start + 1 < s->prompt_size) {  // else no row is followed by a token of the prompt
      const RequestState* request = FindRequest(s->request_id);
      const int first = request->NeedsPromptRows() ? request->FirstLogprobRow() : s->prompt_size;
      if (p.start + p.num_rows > first && first + 1 < s->prompt_size)
        p.first_logprob_row = std::max(0, first - p.start);
    }
    for (int position = p.start; position < p.start + p.num_rows; ++position) {
      plan->token_ids.push_back(s->tokens[position]);
      plan->positions.push_back(position);
    }
  }
}

}  // namespace sessa
