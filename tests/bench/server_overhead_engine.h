// The engine of server_overhead.cc with the model's kernels stubbed out: the real Scheduler and the real
// order of calls of engine.cc's loop, but every sampled token is made up at once. What is left is what the
// front ends and the scheduler cost. Thread-safe as Engine asks.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/monotonic.h"
#include "engine/mutex.h"
#include "engine/scheduler.h"

namespace sessa {

class StubEngine final : public Engine {
 public:
  // Token i of a choice is text_tokens[i % size]. A step takes `step_time`, as if a device computed it (zero:
  // no time).
  StubEngine(const ModelConfig& config, std::vector<int32_t> text_tokens, absl::Duration step_time)
      : config_(config),
        text_tokens_(std::move(text_tokens)),
        step_time_(step_time),
        scheduler_(Options(), {.num_pages = 16384}, {}) {
    options_.max_model_len = Options().max_model_len;
    thread_ = std::thread([this] { Run(); });
  }
  ~StubEngine() override {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  absl::StatusOr<RequestId> Submit(Request request) override {
    RequestId id;
    {
      MutexLock lock(&mutex_);
      id = next_id_++;
      added_.emplace_back(id, std::move(request));
    }
    wake_.notify_one();
    return id;
  }
  absl::Status CheckQueue(const Arrival&) const override { return absl::OkStatus(); }
  void Cancel(RequestId id) override {
    MutexLock lock(&mutex_);
    cancelled_.push_back(id);
  }
  void StopChoice(RequestId, int) override {}  // no stop strings here
  bool Drain(absl::Time) override { return true; }
  EngineStats Stats() const override {
    EngineStats stats;
    stats.heartbeat = MonotonicNow();
    return stats;
  }
  const ModelConfig& config() const override { return config_; }
  const EngineOptions& options() const override { return options_; }

 private:
  static SchedulerOptions Options() {
    SchedulerOptions options;
    options.max_num_seqs = 256;
    options.max_step_tokens = 512;
    options.max_model_len = 4096;
    return options;
  }

  void Run() {
    std::vector<std::pair<RequestId, Request>> added;
    std::vector<RequestId> cancelled;
    std::vector<SchedulerEvent> events;
    while (true) {
      {
        MutexLock lock(&mutex_);
        while (!stop_ && added_.empty() && !scheduler_.has_work()) wake_.wait(mutex_);
        if (stop_) break;
        added.swap(added_);
        cancelled.swap(cancelled_);
      }
      const absl::Time now = MonotonicNow();
      for (auto& [id, request] : added) {
        if (!scheduler_.Add(id, std::move(request), now).ok())
          std::abort();  // this benchmark sends what fits
      }
      for (RequestId id : cancelled) scheduler_.Cancel(id, now, &events);
      added.clear();
      cancelled.clear();
      scheduler_.Expire(now, &events);
      Step(now, &events);
      Deliver(&events);
    }
    scheduler_.AbortAll(absl::CancelledError("the engine is closed"), MonotonicNow(), &events);
    Deliver(&events);
  }

  void Step(absl::Time begin, std::vector<SchedulerEvent>* events) {
    const StepPlan& plan = scheduler_.Schedule(begin);
    if (plan.num_rows() == 0) return;
    results_.resize(plan.sequences.size());
    for (size_t i = 0; i < results_.size(); ++i) {
      const PlanSequence& s = plan.sequences[i];
      results_[i].tokens.clear();
      if (!s.sample) continue;
      results_[i].tokens.push_back(
          {text_tokens_[(s.tokens->size() - s.prompt_size) % text_tokens_.size()], {}});
    }
    if (step_time_ > absl::ZeroDuration()) {
      // From step to step: a late wake-up must not slow the rate.
      next_step_ = std::max(next_step_ + step_time_, begin);
      absl::SleepFor(next_step_ - MonotonicNow());
    }
    const absl::Time end = MonotonicNow();
    scheduler_.ObserveStep(plan, end - begin);
    scheduler_.Commit(plan, results_, end, events);
  }

  void Deliver(std::vector<SchedulerEvent>* events) {
    for (SchedulerEvent& event : *events) {
      if (auto* prompt = std::get_if<PromptInfo>(&event.what)) {
        event.sink->OnPrompt(*prompt);
      } else if (auto* token = std::get_if<TokenUpdate>(&event.what)) {
        if (!event.sink->OnToken(std::move(*token))) Cancel(event.request_id);
      } else {
        event.sink->OnEnd(std::get<RequestEnd>(event.what));
      }
    }
    events->clear();
  }

  const ModelConfig config_;
  EngineOptions options_;
  const std::vector<int32_t> text_tokens_;
  const absl::Duration step_time_;
  Scheduler scheduler_;  // the thread's
  std::vector<SequenceResult> results_;
  absl::Time next_step_ = absl::InfinitePast();

  Mutex mutex_;
  std::condition_variable_any wake_;
  std::vector<std::pair<RequestId, Request>> added_ ABSL_GUARDED_BY(mutex_);
  std::vector<RequestId> cancelled_ ABSL_GUARDED_BY(mutex_);
  RequestId next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sessa
