// The engine: takes requests made of token ids, runs them in continuous batches, and streams tokens back.
// One thread of its own drains the inbox, schedules, executes and commits; it alone touches scheduling state.
// All public methods are thread-safe.
#pragma once

#include <algorithm>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/admission.h"
#include "engine/config.h"
#include "engine/request.h"
#include "engine/scheduler_options.h"
#include "engine/scheduler_stats.h"
#include "engine/weights.h"
#include "kernels/device.h"
#include "kernels/tensor.h"

namespace sessa {

struct EngineOptions : SchedulerOptions {
  DType weight_dtype = DType::kBF16;  // kF32, kBF16 or kI8 (quantised at load)
  DType state_dtype = DType::kBF16;   // kF32 or kBF16; kI8 of models that keep pages
  DType activation_dtype =
      DType::kF32;  // what linears round their input to; kBF16: faster, where AutoActivationDType says so
  bool amx = true;  // what multiplies by bf16 or int8 weights or bf16 state runs on AMX where the CPU has it
  int page_size = 64;  // tokens: 16, 32 or 64
  DeviceType device = DeviceType::kCpu;
  bool batch_invariant = false;  // CUDA: the same bits in any batch, slower prefill; a CPU always gives them
  int64_t state_cache_bytes =
      0;  // 0: a quarter of the machine's free memory, at most 4 GiB; CUDA: nine tenths
  int tensor_parallel_size = 1;  // 1, 2, 4 or 8
  int num_threads = 0;           // CPU threads a rank; 0: cores (of the container) / tensor_parallel_size
  int max_queued_requests = 1024;
  int64_t max_queued_tokens = 1 << 20;  // prompt tokens that wait
  // A request that would wait longer is refused, as predicted (admission.h).
  absl::Duration max_queue_time = absl::InfiniteDuration();
};

// Counters since start and gauges of now, one consistent snapshot of the end of a step.
struct EngineStats : SchedulerStats {
  int page_size = 0;  // tokens
  bool draining = false;
  absl::Status health;   // not OK after a device fault
  absl::Time heartbeat;  // MonotonicNow() at the loop's last pass, or when a request woke it; old while idle

  // What running sequences hold of the state cache, in [0, 1]: of its pages or its slots, whichever is
  // scarcer.
  double state_cache_usage() const {
    const auto share = [](int used, int all) { return all > 0 ? static_cast<double>(used) / all : 0.0; };
    return std::max(share(num_used_pages, num_pages), share(num_used_slots, num_slots));
  }
};

struct StepObservation {
  absl::Duration duration;
  absl::Duration predicted;  // by the scheduler's cost model, before the step
  int num_tokens = 0;
};

// The interface by which the server sees it, so that tests can script the tokens.
class Engine {
 public:
  // Called on the engine thread after each step; must not block. Null: none.
  using StepObserver = void (*)(void* context, const StepObservation&);

  // Loads the weights, allocates the state cache, warms up and starts the threads. Errors name the tensor or
  // option. `weights` is used only during the call.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options,
                                                        const ModelConfig& config,
                                                        const WeightSource& weights,
                                                        StepObserver observer = nullptr,
                                                        void* context = nullptr);
  virtual ~Engine() = default;  // cancels what is left; every sink has had its OnEnd when this returns

  // INVALID_ARGUMENT (bad value, named), OUT_OF_RANGE (context length), RESOURCE_EXHAUSTED (queue full),
  // UNAVAILABLE (draining, or a device fault). On error the sink is not called. RESOURCE_EXHAUSTED also for
  // what would wait for too long; it says when to try again (kRetryAfterMsPayload) unless no time would help.
  virtual absl::StatusOr<RequestId> Submit(Request request) = 0;
  // Whether the queue would take it now, before anything is spent on it: the RESOURCE_EXHAUSTED of Submit.
  virtual absl::Status CheckQueue(const Arrival& arrival) const = 0;

  // Ends the request with CANCELLED; its pages are free at the next step. Unknown or ended ids are ignored.
  virtual void Cancel(RequestId id) = 0;
  // Ends one choice quietly (its stop string was seen by the server); the request ends OK when all choices
  // have.
  virtual void StopChoice(RequestId id, int choice) = 0;

  // Takes no more requests; waits until those accepted have ended or `deadline`, then ends the rest with
  // UNAVAILABLE. False: they did not end even so, the engine's thread hangs in a step, and so would ~Engine.
  virtual bool Drain(absl::Time deadline) = 0;

  virtual EngineStats Stats() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual const EngineOptions& options() const = 0;  // with the zeros filled in
};

}  // namespace sessa
