#include "engine/admission.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/scheduler.h"
#include "engine/waiting_queue.h"

namespace sessa {
namespace {

constexpr double kSpeedSeconds = 5;  // over which the speed of prompts is averaged: where few may run they
                                     // start in bursts, as answers end
constexpr double kMinSpeed = 1e-3;
constexpr double kCaution = 1.25;  // who is taken on the last moment, as predicted, is late half of the time,
                                   // and what was computed for it is lost
constexpr double kForget = 1.0 - 1.0 / 64;
constexpr absl::Duration kMinRetry = absl::Seconds(1), kMaxRetry = absl::Minutes(1);

absl::Status Refuse(const std::string& why, absl::Duration retry_after) {
  absl::Status status = absl::ResourceExhaustedError(why);
  const absl::Duration retry = std::clamp(retry_after, kMinRetry, kMaxRetry);
  status.SetPayload(kRetryAfterMsPayload, absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(retry))));
  return status;
}

std::string Rounded(absl::Duration d) {
  return absl::FormatDuration(absl::Trunc(d, absl::Milliseconds(100)));
}

}  // namespace

Arrival ArrivalOf(const Request& r) {
  return {r.tenant, r.tenant_weight,       r.priority, static_cast<int64_t>(r.prompt.size()),
          r.n,      r.sampling.max_tokens, r.deadline};
}

absl::Duration PrefillPart(const StepPlan& plan, const CostModel& costs) {
  StepFeatures prefill;
  for (const PlanSequence& s : plan.sequences) {
    if (s.num_rows - s.num_drafts > 1) prefill.AddPrefill(s.start, s.num_rows);
  }
  return costs.Predict(prefill) - costs.Predict({});
}

absl::Status Admission::Check(const Arrival& a, int num_waiting, int64_t waiting_tokens,
                              absl::Time now) const {
  const auto refuse_full = [&](const std::string& why) {  // until those that wait now have begun
    Arrival last = a;
    last.priority = std::numeric_limits<int>::max();
    return Refuse(why, PredictWait(last, now));
  };
  if (num_waiting >= limits_.max_queued_requests) {
    return refuse_full(
        absl::StrCat("max_queued_requests: ", limits_.max_queued_requests, " requests wait already"));
  }
  // An empty queue takes any prompt: it could never wait in a smaller one.
  if (waiting_tokens > 0 && waiting_tokens + a.num_prompt_tokens > limits_.max_queued_tokens) {
    return refuse_full(absl::StrCat("max_queued_tokens: ", waiting_tokens, " prompt tokens wait already"));
  }
  // A tenant takes at most half of the places and tokens that others leave, so that there are some for who
  // comes next. Without keys there is one tenant, and it has them all.
  const TenantUse& mine = UseOf(a.tenant);
  const int others = static_cast<int>(waiting_.size()) - mine.num_waiting;
  if (!a.tenant.empty() && mine.num_waiting >= std::max(1, (limits_.max_queued_requests - others + 1) / 2)) {
    return refuse_full(
        absl::StrCat("max_queued_requests: ", mine.num_waiting, " requests of this key wait already"));
  }
  const int64_t others_tokens = waiting_tokens_ - mine.waiting_tokens;
  if (!a.tenant.empty() && mine.num_waiting > 0 &&
      mine.waiting_tokens + a.num_prompt_tokens > (limits_.max_queued_tokens - others_tokens + 1) / 2) {
    return refuse_full(
        absl::StrCat("max_queued_tokens: ", mine.waiting_tokens, " prompt tokens of this key wait already"));
  }
  const absl::Duration wait = PredictWait(a, now);
  if (wait <= absl::ZeroDuration()) return absl::OkStatus();
  const absl::Duration prompt = absl::Seconds(PromptSeconds(a.num_prompt_tokens));
  // Who brings long work waits as long as that takes: beside it the limit would only cut the queue to
  // nothing.
  const absl::Duration patience = std::max(limits_.max_queue_time, prompt);
  if (wait > patience) {
    return Refuse(absl::StrCat("max_queue_seconds: it would wait for about ", Rounded(wait)),
                  wait - patience);
  }
  const absl::Duration answer =
      absl::Seconds(step_seconds_) * (lengths_.ExpectedRemaining(0, a.max_tokens) - 1);
  const absl::Duration late = kCaution * (wait + prompt + answer) - (a.deadline - now);
  if (late > absl::ZeroDuration()) {
    return Refuse(absl::StrCat("it would wait for about ", Rounded(wait), " and miss its deadline"), late);
  }
  return absl::OkStatus();
}

void Admission::Enter(RequestId id, const Arrival& a, absl::Time now) {
  TenantUse& tenant = tenants_[a.tenant];
  tenant.weight = a.tenant_weight;
  ++tenant.num_waiting;
  tenant.waiting_tokens += a.num_prompt_tokens;
  const double left = tenant.StillTaken(now);
  for (double& rate : tenant.taken) rate *= left;
  tenant.taken[Bucket(a.num_prompt_tokens)] += PromptSeconds(a.num_prompt_tokens) / kSpeedSeconds;
  tenant.last_taken = now;
  waiting_tokens_ += a.num_prompt_tokens;
  waiting_[id] = {a.tenant,
                  a.tenant_weight,
                  a.priority,
                  a.num_prompt_tokens,
                  now,
                  PromptSeconds(a.num_prompt_tokens),
                  AnswerSeconds(a),
                  a.n};
}

void Admission::Leave(RequestId id, int num_cached_tokens) {
  const auto it = waiting_.find(id);
  if (it == waiting_.end()) return;
  TenantUse& tenant = tenants_[it->second.tenant];
  --tenant.num_waiting;
  tenant.waiting_tokens -= it->second.num_prompt_tokens;
  waiting_tokens_ -= it->second.num_prompt_tokens;
  if (num_cached_tokens >= 0) {
    tenant.served += it->second.prompt_seconds;
    prompt_tokens_ = kForget * prompt_tokens_ + static_cast<double>(it->second.num_prompt_tokens);
    cached_tokens_ = kForget * cached_tokens_ + num_cached_tokens;
  }
  waiting_.erase(it);
}

void Admission::Observe(const EngineSupply& supply) {
  costs_ = *supply.costs;
  lengths_ = *supply.lengths;
  num_startable_ = supply.num_startable;
  batch_ = std::max(1, supply.num_running + supply.num_startable);
  const double seconds = absl::ToDoubleSeconds(supply.step);
  if (seconds <= 0) return;
  const double share = 1 - std::exp(-seconds / kSpeedSeconds);
  step_seconds_ = step_seconds_ == 0 ? seconds : step_seconds_ + share * (seconds - step_seconds_);
  // Where none is left waiting the step would have had time for more.
  if (!waiting_.empty()) {
    prompt_speed_ += share * (absl::ToDoubleSeconds(supply.prefill) / seconds - prompt_speed_);
  }
  for (auto it = tenants_.begin(); it != tenants_.end();) {
    TenantUse& tenant = it->second;
    tenant.rate += share * (std::exchange(tenant.served, 0) / seconds - tenant.rate);
    it = tenant.num_waiting == 0 && tenant.rate < kMinSpeed ? tenants_.erase(it) : std::next(it);
  }
}

double Admission::PromptSeconds(int64_t num_tokens) const {
  StepFeatures f;
  f.AddPrefill(0, num_tokens);
  return absl::ToDoubleSeconds(costs_.Predict(f) - costs_.Predict({}));
}

// All of its tokens in steps of batch_ sequences like it.
double Admission::AnswerSeconds(const Arrival& a) const {
  const int rows = lengths_.ExpectedRemaining(0, a.max_tokens);
  StepFeatures middle;
  middle.AddDecode(static_cast<int>(a.num_prompt_tokens) + rows / 2);
  const absl::Duration fixed = costs_.Predict({});
  return a.n * rows * absl::ToDoubleSeconds(costs_.Predict(middle) - fixed + fixed / batch_);
}

const Admission::TenantUse& Admission::UseOf(const std::string& tenant) const {
  static const TenantUse kNone;
  const auto it = tenants_.find(tenant);
  return it == tenants_.end() ? kNone : it->second;
}

double Admission::TenantUse::StillTaken(absl::Time now) const {
  return std::exp(-absl::ToDoubleSeconds(now - last_taken) / kSpeedSeconds);
}

// Seconds of this tenant's prompts, as predicted, in a second: what the others leave, and at least its share.
double Admission::SpeedOf(const Arrival& a, double missed) const {
  double others = 0, weights = a.tenant_weight;
  for (const auto& [name, tenant] : tenants_) {
    if (name == a.tenant) continue;
    others += tenant.rate * missed;
    weights += tenant.weight;
  }
  return std::max({prompt_speed_ - others, prompt_speed_ * a.tenant_weight / weights, kMinSpeed});
}

int Admission::Bucket(int64_t num_tokens) {
  return std::clamp(static_cast<int>(4 * std::log2(static_cast<double>(std::max<int64_t>(1, num_tokens)))), 0,
                    kBuckets - 1);
}

double Admission::ShareOfOvertakers(const Arrival& a, double missed, absl::Time now) const {
  const TenantUse& mine = UseOf(a.tenant);
  const double shorter =
      std::accumulate(mine.taken.begin(), mine.taken.begin() + Bucket(a.num_prompt_tokens), 0.0);
  // Whom age puts first has one step after each kMaxOvertakes of the shorter ones'.
  constexpr double kMost = Scheduler::kMaxOvertakes / (Scheduler::kMaxOvertakes + 1.0);
  return std::min(kMost, shorter * mine.StillTaken(now) * missed / SpeedOf(a, missed));
}

absl::Duration Admission::PredictWait(const Arrival& a, absl::Time now) const {
  Ahead mine, aged;
  std::map<std::string, std::pair<int, Ahead>> others;  // by tenant, with the weight
  const auto add = [](const Waiting& w, Ahead* sum) {
    sum->prompt_seconds += w.prompt_seconds;
    sum->answer_seconds += w.answer_seconds;
    sum->num_sequences += w.num_sequences;
  };
  for (const auto& [id, w] : waiting_) {
    if (w.tenant == a.tenant && w.priority > a.priority) continue;
    const double age = absl::ToDoubleSeconds(now - w.arrival);
    if (w.tenant != a.tenant) {
      auto& [weight, sum] = others[w.tenant];
      weight = w.weight;
      add(w, &sum);
    } else if (w.num_prompt_tokens <= a.num_prompt_tokens) {
      add(w, &mine);
    } else if (static_cast<double>(w.num_prompt_tokens) - age * kAgeingTokensPerSecond <=
               static_cast<double>(a.num_prompt_tokens)) {
      add(w, &aged);
    }
  }
  // Longer prompts that are ahead by age alone have one step after each kMaxOvertakes of the shorter ones'.
  mine.prompt_seconds +=
      std::min(aged.prompt_seconds,
               (mine.prompt_seconds + PromptSeconds(a.num_prompt_tokens)) / Scheduler::kMaxOvertakes);
  mine.answer_seconds += aged.answer_seconds;
  mine.num_sequences += aged.num_sequences;
  if (mine.num_sequences == 0) return absl::ZeroDuration();
  Ahead all = mine;
  for (const auto& [tenant, other] : others) {
    const auto& [weight, sum] = other;
    const double allowed = (mine.prompt_seconds + mine.answer_seconds) * weight / a.tenant_weight;
    const double share = std::min(1.0, allowed / (sum.prompt_seconds + sum.answer_seconds));
    all.prompt_seconds += share * sum.prompt_seconds;
    all.answer_seconds += share * sum.answer_seconds;
    all.num_sequences += share * sum.num_sequences;
  }
  const double missed = prompt_tokens_ > 0 ? 1 - cached_tokens_ / prompt_tokens_ : 1;
  const double must_wait = std::max(0.0, 1 - num_startable_ / all.num_sequences);
  const double own = 1 - ShareOfOvertakers(a, missed, now);
  return absl::Seconds(
      std::max({all.prompt_seconds * missed / std::max(prompt_speed_, kMinSpeed),
                mine.prompt_seconds * missed / SpeedOf(a, missed), all.answer_seconds * must_wait}) /
      own);
}

}  // namespace sessa
