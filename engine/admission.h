// Who may wait: judged when a request arrives, before anything is computed for it. A request that would start
// too late, or so late that it could not end by its deadline, is refused at once with the time after which to
// try again: under overload what is taken is then finished in time, instead of everything too late. Not
// thread-safe: the Engine guards it with its mutex.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/cost_model.h"
#include "engine/page_forecast.h"
#include "engine/request.h"

namespace sessa {

// Payload of RESOURCE_EXHAUSTED: the whole milliseconds after which a request may be taken, in decimal.
inline constexpr char kRetryAfterMsPayload[] = "sessa/retry_after_ms";

struct AdmissionLimits {
  int max_queued_requests = 1024;
  int64_t max_queued_tokens = 1 << 20;
  absl::Duration max_queue_time = absl::InfiniteDuration();
};

// What is known of a request that arrives. Before its prompt is tokenised: the least that it can have.
struct Arrival {
  static constexpr int kMostUrgent = std::numeric_limits<int>::min();

  std::string tenant;
  int tenant_weight = 1;
  int priority = 0;  // kMostUrgent: not known yet, only the queue's size is judged
  int64_t num_prompt_tokens = 1;
  int n = 1;
  int max_tokens = 1;
  absl::Time deadline = absl::InfiniteFuture();
};
Arrival ArrivalOf(const Request& request);

// What the engine has for newcomers, at the end of a step.
struct EngineSupply {
  const CostModel* costs = nullptr;
  const AnswerLengths* lengths = nullptr;
  int num_running = 0;     // sequences
  int num_startable = 0;   // sequences that could start now, prompts apart
  absl::Duration step;     // how long the step took; zero: there was none
  absl::Duration prefill;  // the part of it that is due to prompts, as predicted
};

// What of a step is due to its sequences with more than one row.
absl::Duration PrefillPart(const StepPlan& plan, const CostModel& costs);

class Admission {
 public:
  explicit Admission(const AdmissionLimits& limits) : limits_(limits) {}

  // OK, or RESOURCE_EXHAUSTED with kRetryAfterMsPayload. `num_waiting` and `waiting_tokens`: of the queue.
  absl::Status Check(const Arrival& arrival, int num_waiting, int64_t waiting_tokens, absl::Time now) const;

  void Enter(RequestId id, const Arrival& arrival, absl::Time now);  // it was taken
  // Its prompt is computed, of which `num_cached_tokens` were there already, or it has ended (-1). Ids that
  // have left are ignored.
  void Leave(RequestId id, int num_cached_tokens);
  void Observe(const EngineSupply& supply);

  // From arrival to the first row of its prompt, if nobody of a higher priority comes. Zero when nobody is
  // ahead.
  //
  // Ahead of it, within its tenant, are those that waiting_queue.h puts first. While they are served every
  // other tenant is too, with what waits of it and with what it will send, if it goes on as lately, both as
  // far as its weight allows. Prompts go as fast as they went lately (this sees the decoding beside them, and
  // that places or pages are short); those who may not start yet wait for answers to end besides, and the
  // longest counts. Shorter prompts of its own tenant will go on to overtake it: the time they take is not
  // its own.
  absl::Duration PredictWait(const Arrival& arrival, absl::Time now) const;

 private:
  struct Waiting {
    std::string tenant;
    int weight = 1, priority = 0;
    int64_t num_prompt_tokens = 0;
    absl::Time arrival;
    double prompt_seconds = 0, answer_seconds = 0;
    int num_sequences = 0;
  };
  struct Ahead {  // sums
    double prompt_seconds = 0, answer_seconds = 0, num_sequences = 0;
  };
  static constexpr int kBuckets = 96;  // four to a factor of two: up to 2^24 tokens
  static int Bucket(int64_t num_tokens);
  struct TenantUse {
    int weight = 1, num_waiting = 0;
    int64_t waiting_tokens = 0;  // of their prompts
    double served = 0;           // seconds of prompts computed since the last step that was observed
    double rate = 0;             // of that, in a second, lately
    // Seconds of prompts taken in a second, lately, as of last_taken, by Bucket of their length.
    std::array<double, kBuckets> taken = {};
    absl::Time last_taken = absl::InfinitePast();

    double StillTaken(absl::Time now) const;  // what is left of `taken` by now, as a share
  };
  double SpeedOf(const Arrival& arrival, double missed) const;
  // The share of its tenant's prompt time that goes to shorter ones which come after it, if as many come as
  // lately.
  double ShareOfOvertakers(const Arrival& arrival, double missed, absl::Time now) const;
  double PromptSeconds(int64_t num_tokens) const;  // the engine's time, without prefix hits
  double AnswerSeconds(const Arrival& arrival) const;
  const TenantUse& UseOf(const std::string& tenant) const;  // zeros when there is none

  const AdmissionLimits limits_;
  std::map<RequestId, Waiting> waiting_;      // taken, and their prompts are not computed
  int64_t waiting_tokens_ = 0;                // of their prompts
  std::map<std::string, TenantUse> tenants_;  // those that wait or were served lately
  CostModel costs_;
  AnswerLengths lengths_;
  int batch_ = 1;  // sequences that share a step's fixed cost when no more may start
  int num_startable_ = std::numeric_limits<int>::max();
  double step_seconds_ = 0;  // lately
  double prompt_speed_ = 1;  // seconds of prompts, as predicted, computed in a second while some waited
  double prompt_tokens_ = 0, cached_tokens_ = 0;  // forgetting sums
};

}  // namespace sessa
