// The tensor-parallel ranks: each a Backend, a Communicator, a Model and a StateCache on a thread of its own
// (rank 0 uses the caller's), or the one rank that this process has of a group of processes (RankGroup).
// Executes one plan at a time on all of them.
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

  // Forward on all ranks, then samples. A device error is sticky: every later call returns it.
  // Not thread-safe: the engine thread calls it.
  absl::Status Execute(const StepPlan& plan, std::vector<SequenceResult>* results);

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
