// The loop: drain the inbox, schedule, execute, commit, deliver (docs/architecture.md, "One step"). Beside a
// device the last two, and the next step's first two, are done while it computes.
#include "engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "engine/check_request.h"
#include "engine/engine_options.h"
#include "engine/group_engine.h"
#include "engine/monotonic.h"
#include "engine/mutex.h"
#include "engine/scheduler.h"
#include "engine/warm_up.h"
#include "engine/worker.h"
#include "kernels/own_core.h"
#include "kernels/slices.h"

namespace sessa {
namespace {

// What the first steps may take in all, and before requests are taken; those after it run until one comes. A
// model of D 1024 and 24 layers on two cores has time for all.
constexpr absl::Duration kWarmUpTime = absl::Seconds(1), kStartTime = absl::Milliseconds(50);

// What ending every request may take: the step that runs, which is a fraction of a second long unless a rank
// hangs.
constexpr absl::Duration kAbortTime = absl::Seconds(10);

// What other threads want, in the order of their calls.
struct Command {
  enum class Kind { kAdd, kCancel, kStopChoice } kind;
  RequestId id = 0;
  Request request = {};
  int choice = 0;
  absl::Time arrival = absl::InfinitePast();  // of a request: before it waits for the step that runs
};

struct StepUnderWay {
  const StepPlan* plan;
  absl::Time begin;
  absl::Duration predicted;
};

class EngineImpl final : public Engine {
 public:
  EngineImpl(const EngineOptions& options, const ModelConfig& config, std::unique_ptr<Workers> workers,
             StepObserver observer, void* context)
      : options_(options),
        config_(config),
        workers_(std::move(workers)),
        observer_(observer),
        context_(context),
        scheduler_(options, workers_->state(), config.eos_token_ids),
        warm_up_(options, workers_->state(), kWarmUpTime),
        admission_({options.max_queued_requests, options.max_queued_tokens, options.max_queue_time}) {
    stats_.page_size = options.page_size;
    static_cast<SchedulerStats&>(stats_) = scheduler_.Stats();
    stats_.heartbeat = MonotonicNow();
  }

  ~EngineImpl() override {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  // What has to be known before requests are taken.
  absl::Status TryWeights() {
    while (warm_up_.spent() < kStartTime) {
      const bool is_first = warm_up_.spent() == absl::ZeroDuration();
      const absl::StatusOr<bool> ran = RunWarmUpStep();
      if (!ran.ok()) return ran.status();
      if (!*ran) break;
      // One row at position 0, which reads nothing that was not written.
      if (is_first && results_[0].tokens[0].token < 0)
        return absl::InvalidArgumentError("the weights give logits that are not numbers");
    }
    return absl::OkStatus();
  }

  void Start() {
    thread_ = std::thread([this] { Run(); });
  }

  absl::StatusOr<RequestId> Submit(Request request) override {
    if (absl::Status valid = CheckRequest(request, config_); !valid.ok()) return valid;
    if (absl::Status fits = scheduler_.CheckFits(request); !fits.ok()) return fits;
    const absl::Time now = MonotonicNow();
    const Arrival arrival = ArrivalOf(request);
    RequestId id = 0;
    {
      MutexLock lock(&mutex_);
      if (!stats_.health.ok()) return stats_.health;
      if (draining_) return absl::UnavailableError("the server is shutting down");
      if (absl::Status room = CheckRoom(arrival, now); !room.ok()) return room;
      id = next_id_++;
      admission_.Enter(id, arrival, now);
      if (num_live_++ == 0)
        stats_.heartbeat = MonotonicNow();  // the loop may have slept: a beat is due from now on
      ++unseen_requests_;
      unseen_tokens_ += arrival.num_prompt_tokens;
      inbox_.push_back({Command::Kind::kAdd, id, std::move(request), 0, now});
    }
    wake_.notify_one();
    return id;
  }

  absl::Status CheckQueue(const Arrival& arrival) const override {
    MutexLock lock(&mutex_);
    return CheckRoom(arrival, MonotonicNow());
  }

  void Send(Command command) {
    {
      MutexLock lock(&mutex_);
      inbox_.push_back(std::move(command));
    }
    wake_.notify_one();
  }

  void Cancel(RequestId id) override { Send({Command::Kind::kCancel, id}); }
  void StopChoice(RequestId id, int choice) override { Send({Command::Kind::kStopChoice, id, {}, choice}); }

  bool Drain(absl::Time deadline) override {
    MutexLock lock(&mutex_);
    draining_ = true;
    stats_.draining = true;
    drain_deadline_ = std::min(drain_deadline_, deadline);  // a second call may hasten the first
    wake_.notify_one();
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_live_ == 0; };
    if (WaitUntil(&idle_, &mutex_, drain_deadline_, idle)) return true;
    abort_ = true;
    wake_.notify_one();
    return WaitUntil(&idle_, &mutex_, MonotonicNow() + kAbortTime, idle);
  }

  EngineStats Stats() const override {
    MutexLock lock(&mutex_);
    EngineStats stats = stats_;
    stats.num_waiting += unseen_requests_;
    stats.waiting_tokens += unseen_tokens_;
    return stats;
  }

  const ModelConfig& config() const override { return config_; }
  const EngineOptions& options() const override { return options_; }

 private:
  absl::Status CheckRoom(const Arrival& arrival, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return admission_.Check(arrival, stats_.num_waiting + unseen_requests_,
                            stats_.waiting_tokens + unseen_tokens_, now);
  }

  absl::StatusOr<bool> RunWarmUpStep() {
    const auto run = [&](const StepPlan& plan) -> absl::StatusOr<absl::Duration> {
      const absl::Time begin = MonotonicNow();
      workers_->Start(plan);
      if (absl::Status done = workers_->Finish(plan, &results_); !done.ok()) return done;
      return MonotonicNow() - begin;
    };
    return warm_up_.Next(run, scheduler_.mutable_cost_model());
  }

  // Until something comes, and never after.
  void WarmUpWhileIdle() {
    const auto is_idle = [this] {
      MutexLock lock(&mutex_);
      return inbox_.empty() && !stop_ && !abort_;
    };
    while (is_idle()) {
      const absl::StatusOr<bool> ran = RunWarmUpStep();
      health_ = ran.status();
      if (!ran.ok()) return Publish({}, {});
      if (!*ran) return;
    }
  }

  void Run() {
    AskForSlices(kEngineSlice);
    if (options_.device == DeviceType::kCpu) AskForOwnCore(0, options_.num_threads);
    WarmUpWhileIdle();
    std::vector<Command> commands;
    std::vector<SchedulerEvent> events;
    for (bool stop = false; !stop;) {
      bool abort = false;
      {
        MutexLock lock(&mutex_);
        while (inbox_.empty() && !stop_ && !abort_ && !scheduler_.has_work() && under_way_.empty() &&
               events.empty())
          wake_.wait(mutex_);
        commands.swap(inbox_);
        stop = stop_;
        abort = std::exchange(abort_, false);
      }
      while ((abort || stop) && !under_way_.empty()) FinishStep(&events);
      const absl::Time now = MonotonicNow();
      for (Command& command : commands) Apply(std::move(command), now, &events);
      scheduler_.Expire(now, &events);
      if (abort) scheduler_.AbortAll(absl::UnavailableError("the server is shutting down"), now, &events);
      if (stop) scheduler_.AbortAll(absl::CancelledError("the engine is closed"), now, &events);
      const bool started = StartStep();
      // A device works on while its host says what the steps before gave; on a CPU the step is computed by
      // now.
      const bool beside_device = workers_->is_asynchronous();
      if (!beside_device) FinishStep(&events);
      Publish(commands, events);
      commands.clear();
      Deliver(&events);
      const bool another = started && MayStartStep();
      if (beside_device && !another) FinishStep(&events);
    }
  }

  void Apply(Command command, absl::Time now, std::vector<SchedulerEvent>* events) {
    switch (command.kind) {
      case Command::Kind::kCancel: return scheduler_.Cancel(command.id, now, events);
      case Command::Kind::kStopChoice: return scheduler_.StopChoice(command.id, command.choice, now, events);
      case Command::Kind::kAdd: break;
    }
    seen_tokens_ += static_cast<int64_t>(command.request.prompt.size());
    std::shared_ptr<TokenSink> sink = command.request.sink;
    absl::Status added =
        health_.ok() ? scheduler_.Add(command.id, std::move(command.request), command.arrival) : health_;
    if (added.ok()) return;
    RequestEnd end;
    end.status = std::move(added);
    end.arrival = command.arrival;
    end.finished = now;
    end.scheduled = end.first_token = absl::InfinitePast();
    events->push_back({command.id, std::move(sink), std::move(end)});
  }

  bool MayStartStep() {
    if (under_way_.empty()) return true;
    return static_cast<int>(under_way_.size()) < workers_->max_under_way() && scheduler_.CanScheduleAhead();
  }

  // False: there was nothing to start.
  bool StartStep() {
    if (!MayStartStep()) return false;
    const absl::Time begin = MonotonicNow();
    const StepPlan& plan = scheduler_.Schedule(begin);
    if (plan.num_rows() == 0) return false;
    under_way_.push_back({&plan, begin, scheduler_.PredictStep(plan)});
    workers_->Start(plan);
    return true;
  }

  // The oldest one under way, if there is any.
  void FinishStep(std::vector<SchedulerEvent>* events) {
    if (under_way_.empty()) return;
    const StepUnderWay step = under_way_.front();
    under_way_.pop_front();
    const StepPlan& plan = *step.plan;
    health_ = workers_->Finish(plan, &results_);
    const absl::Time end = MonotonicNow();
    if (!health_.ok()) {
      under_way_.clear();
      scheduler_.AbortAll(health_, end, events);
      return;
    }
    // One that was started behind another has begun when that ended.
    const absl::Duration duration = end - std::max(step.begin, std::exchange(last_end_, end));
    supply_.step += duration;
    supply_.prefill += PrefillPart(plan, scheduler_.cost_model());
    scheduler_.ObserveStep(plan, duration);
    if (observer_ != nullptr) observer_(context_, {duration, step.predicted, plan.num_rows()});
    scheduler_.Commit(plan, results_, end, events);
  }

  // Before the events are delivered: who sees an end sees it counted.
  void Publish(const std::vector<Command>& commands, const std::vector<SchedulerEvent>& events) {
    const SchedulerStats s = scheduler_.Stats();
    EngineSupply supply = std::exchange(supply_, {});
    supply.costs = &scheduler_.cost_model();
    supply.lengths = &scheduler_.answer_lengths();
    supply.num_running = s.num_running_sequences;
    supply.num_startable = s.num_startable;
    MutexLock lock(&mutex_);
    for (const SchedulerEvent& event : events) {
      const auto* prompt = std::get_if<PromptInfo>(&event.what);
      if (prompt != nullptr) admission_.Leave(event.request_id, prompt->num_cached_tokens);
      if (std::holds_alternative<RequestEnd>(event.what)) admission_.Leave(event.request_id, -1);
    }
    admission_.Observe(supply);
    for (const Command& command : commands) {
      if (command.kind == Command::Kind::kAdd) --unseen_requests_;
    }
    unseen_tokens_ -= std::exchange(seen_tokens_, 0);
    static_cast<SchedulerStats&>(stats_) = s;
    stats_.health = health_;
    stats_.heartbeat = MonotonicNow();
  }

  void Deliver(std::vector<SchedulerEvent>* events) {
    int num_ended = 0;
    std::vector<RequestId> refused;
    for (SchedulerEvent& event : *events) {
      if (auto* prompt = std::get_if<PromptInfo>(&event.what)) {
        event.sink->OnPrompt(*prompt);
      } else if (auto* token = std::get_if<TokenUpdate>(&event.what)) {
        if (!event.sink->OnToken(std::move(*token))) refused.push_back(event.request_id);
      } else {
        event.sink->OnEnd(std::get<RequestEnd>(event.what));
        ++num_ended;
      }
    }
    events->clear();
    if (num_ended == 0 && refused.empty()) return;
    MutexLock lock(&mutex_);
    for (RequestId id : refused) inbox_.push_back({Command::Kind::kCancel, id});
    num_live_ -= num_ended;
    if (num_live_ == 0) idle_.notify_all();
  }

  const EngineOptions options_;
  const ModelConfig config_;
  const std::unique_ptr<Workers> workers_;
  const StepObserver observer_;
  void* const context_;
  Scheduler scheduler_;  // the engine thread's, but for CheckFits
  WarmUp warm_up_;
  std::deque<StepUnderWay> under_way_;
  absl::Time last_end_ = absl::InfinitePast();
  EngineSupply supply_;  // of the steps since the last Publish
  std::vector<SequenceResult> results_;
  absl::Status health_;
  int64_t seen_tokens_ = 0;  // prompt tokens taken from the inbox since the last Publish

  mutable Mutex mutex_;
  std::condition_variable_any wake_, idle_;
  std::vector<Command> inbox_ ABSL_GUARDED_BY(mutex_);
  Admission admission_ ABSL_GUARDED_BY(mutex_);
  RequestId next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  int num_live_ ABSL_GUARDED_BY(mutex_) = 0;         // accepted, and OnEnd has not returned
  int unseen_requests_ ABSL_GUARDED_BY(mutex_) = 0;  // accepted, and not in stats_ yet
  int64_t unseen_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool abort_ ABSL_GUARDED_BY(mutex_) = false;  // end everything now: the drain's deadline has passed
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time drain_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  EngineStats stats_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateGroupEngine(const EngineOptions& given,
                                                          std::shared_ptr<RankGroup> group,
                                                          const ModelConfig& config,
                                                          const WeightSource& weights,
                                                          Engine::StepObserver observer, void* context) {
  if (absl::Status valid = config.Validate(); !valid.ok()) return valid;
  absl::StatusOr<EngineOptions> options = CompleteOptions(given, config, group != nullptr);
  if (!options.ok()) return options.status();
  const StateLimits limits{
      MaxUsefulPages(*options),
      options->enable_prefix_caching ? std::numeric_limits<int>::max() : options->max_num_seqs,
      [&](int num_pages) { return FitMaxModelLen(given.max_model_len > 0, num_pages, &*options); }};
  auto workers = Workers::Create(*options, limits, config, weights, std::move(group));
  if (!workers.ok()) return workers.status();
  options->state_cache_bytes = (*workers)->state_cache_bytes();
  FitMaxNumSeqs(given.max_num_seqs > 0, (*workers)->state().num_slots, &*options);
  auto impl = std::make_unique<EngineImpl>(*options, config, *std::move(workers), observer, context);
  if (absl::Status tried = impl->TryWeights(); !tried.ok()) return tried;
  impl->Start();
  return std::unique_ptr<Engine>(std::move(impl));
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                       const ModelConfig& config, const WeightSource& weights,
                                                       StepObserver observer, void* context) {
  return CreateGroupEngine(options, nullptr, config, weights, observer, context);
}

}  // namespace sessa
