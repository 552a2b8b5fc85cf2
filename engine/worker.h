// The tensor-parallel ranks: each a Backend, a Communicator, a Model and a StateCache on a thread of its own
// (rank 0 uses the caller's), or the one rank that this process has of a group of processes (RankGroup).
// Executes plans on all of them, one after the other; a device may have the next while it computes one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/engine.h"
#include "engine/page_geometry.h"
#include "engine/step_plan.h"
#include "engine/weights.h"

namespace sessa {

class RankGroup;

// How much state is of use, beside what EngineOptions::state_cache_bytes pays for.
struct StateLimits {
  int max_pages = 0;
  int max_slots = 0;  // of recurrent state; models without it have none
  // Called once the number of pages is known, which is before the weights are read where the budget was
  // named; its error is Create's. Null: any will do.
  std::function<absl::Status(int num_pages)> judge_pages = nullptr;
};

class Workers {
 public:
  // Loads every rank's weights and allocates its state: as many pages as state_cache_bytes pays for, a
  // multiple of the ranks; of a model with recurrent state slots, and then pages are but numbers.
  // RESOURCE_EXHAUSTED when that is none; the errors of Model::Load.
  // `group`: this process has one rank of options.tensor_parallel_size; every process calls it, it returns
  // when all have loaded, and rank 0's limits count. Null: all are threads of this process. Requires: the
  // options are complete (engine_options.h).
  static absl::StatusOr<std::unique_ptr<Workers>> Create(const EngineOptions& options,
                                                         const StateLimits& limits, const ModelConfig& config,
                                                         const WeightSource& weights,
                                                         std::shared_ptr<RankGroup> group = nullptr);
  ~Workers();

  // Starts a step: forward on all ranks, then samples. Where !is_asynchronous() it is computed when the call
  // returns. `plan` stays until its Finish. Not thread-safe, as all below: the engine thread calls it.
  void Start(const StepPlan& plan);
  // Waits for the oldest step that was started and not finished, which is this. A device error is sticky:
  // every later call returns it.
  absl::Status Finish(const StepPlan& plan, std::vector<SequenceResult>* results);
  // Whether devices compute beside the host.
  bool is_asynchronous() const;
  // How many steps may be started before the first is finished: 2 where the tokens that one samples are on
  // the device by which the next one reads them (SampledId), else 1.
  int max_under_way() const;

  // Of a rank other than 0 of a group: executes rank 0's plans until it ends the group, which is OK, or is
  // lost.
  absl::Status Obey();

  const StateSize& state() const;
  int64_t state_cache_bytes() const;  // the budget, also when the options left it open

 private:
  class Impl;
  explicit Workers(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sessa
