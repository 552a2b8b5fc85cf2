// An engine whose ranks have a process each: the leader's, which has rank 0 and all of the engine, and what
// the others run, who take no requests and have no scheduler.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/rank_group.h"

namespace sessa {

// As Engine::Create, over options.tensor_parallel_size ranks of which this process has rank 0; it returns
// when all have loaded. A rank that is lost ends the engine as a device fault does. Null: Engine::Create.
absl::StatusOr<std::unique_ptr<Engine>> CreateGroupEngine(
    const EngineOptions& options, std::shared_ptr<RankGroup> group, const ModelConfig& config,
    const WeightSource& weights, Engine::StepObserver observer = nullptr, void* context = nullptr);

// Any other rank: loads its share, calls `on_ready` when all ranks have loaded theirs, and executes rank 0's
// plans. OK once rank 0 has ended the group; UNAVAILABLE when a rank is lost, or the errors of
// Engine::Create. `weights` is used until `on_ready`.
absl::Status ServeRank(const EngineOptions& options, std::shared_ptr<RankGroup> group,
                       const ModelConfig& config, const WeightSource& weights,
                       const std::function<void()>& on_ready);

}  // namespace sessa
