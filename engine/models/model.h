// One rank's share of a decoder-only language model: weights, activations and the forward pass. What its
// layers are is a Family's (layers.h). Not thread-safe: one rank thread calls it.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/models/layers.h"
#include "engine/models/shards.h"
#include "engine/state_cache.h"
#include "engine/step_plan.h"
#include "engine/weights.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"

namespace sessa {

// What tests and tools may look at on the way.
struct ForwardTrace {
  std::vector<std::vector<float>> hidden;  // [L][rows * D], the output of each layer
};

class Model {
 public:
  // Without weights; StateShapes alone may be asked. Requires: config.Validate(). What is pointed to outlives
  // it. UNIMPLEMENTED when the device has no kernels for the family.
  static absl::StatusOr<std::unique_ptr<Model>> Create(const ModelConfig& config, const ModelOptions& options,
                                                       Backend* backend, Communicator* communicator);
  // The errors of Loader.
  absl::Status LoadWeights(const WeightSource& weights);
  // Both at once.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const ModelConfig& config, const WeightSource& weights,
                                                     const ModelOptions& options, Backend* backend,
                                                     Communicator* communicator);

  // What each layer keeps on this rank; the memory is StateCache's.
  std::vector<StateShape> StateShapes() const;

  // Enqueues the plan's rows, of which there are some: appends their state to the cache and returns the
  // logits [logit_rows.size(), V] of the named rows, in device memory of every rank, valid until the next
  // call. The plan must stay until Synchronize.
  Matrix Forward(const StepPlan& plan, const std::vector<int32_t>& logit_rows, StateCache* cache,
                 ForwardTrace* trace = nullptr);

  const ModelConfig& config() const { return config_; }

 private:
  Model(const ModelConfig& config, const ModelOptions& options, Backend* backend, Communicator* communicator);
  void BeginStep(const StepPlan& plan, const std::vector<int32_t>& logit_rows);

  const ModelConfig config_;
  const ModelOptions options_;
  Backend* const backend_;
  Communicator* const communicator_;
  const Shard vocabulary_;
  Family family_;

  DType embed_dtype_ = DType::kF32;
  Buffer embed_, norm_weight_, norm_bias_;
  LinearWeights head_;
  Buffer x_, logit_in_, logits_;  // activations of a step, [max_rows, ...]
  StepRows step_;                 // of the plan
};

}  // namespace sessa
