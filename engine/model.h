// One rank's share of a Sessa model: weights, activations and the forward pass. Every linear layer is cut by
// output columns and its result gathered, so the order of every sum, and with it every bit, is the same for
// 1, 2, 4 and 8 ranks. Forward attention is cut by heads, feedback state by tiles (64 tokens) dealt out in
// turn, the solve by columns of s. Not thread-safe: one rank thread calls it.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
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
  // Without weights; StateShape alone may be asked. Requires: config.Validate(). What is pointed to outlives
  // it.
  Model(const ModelConfig& config, int max_rows, Backend* backend, Communicator* communicator);
  // Errors name the tensor: NOT_FOUND when missing, INVALID_ARGUMENT for a wrong shape.
  absl::Status LoadWeights(const WeightSource& weights, DType weight_dtype);
  // Both at once.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const ModelConfig& config, const WeightSource& weights,
                                                     DType weight_dtype, int max_rows, Backend* backend,
                                                     Communicator* communicator);

  // What the state of one layer on this rank looks like; the memory is StateCache's.
  LayerState StateShape(DType dtype, int page_size, int num_pages) const;

  // Enqueues the plan's rows, of which there are some: appends their state to the cache and returns the
  // logits [logit_rows.size(), V] of the named rows, in device memory of every rank, valid until the next
  // call. The plan must stay until Synchronize.
  Matrix Forward(const StepPlan& plan, const std::vector<int32_t>& logit_rows, StateCache* cache,
                 ForwardTrace* trace = nullptr);

  const ModelConfig& config() const { return config_; }

 private:
  struct Layer {
    Buffer ln_weight, ln_bias, gamma_ctx, gamma_bias;
    LinearWeights w_a, w_g, q, k, v, q_b, k_b, out, w_out;
  };
  class Loader;

  absl::Status AllocateActivations();
  Matrix Rows(const Buffer& buffer, int rows, int cols) const { return {buffer.floats(), rows, cols, cols}; }
  void BeginStep(const StepPlan& plan, const std::vector<int32_t>& logit_rows, DType state_dtype);
  void RunLayer(const Layer& layer, int rows, LayerState* state);
  // What the feedback reads for a wave of the step.
  FeedbackReadCall ReadOf(int wave, int rows) const;
  void Feedback(int rows, LayerState* state);
  void GatherPartials(const FeedbackPartials& partials);
  void GatherRows(const std::vector<RowSpan>& blocks, absl::Span<const Matrix> matrices);

  const ModelConfig config_;
  const int max_rows_;
  Backend* const backend_;
  Communicator* const communicator_;
  // Bounds of each rank's share: columns of D (multiples of 16), query heads, V.
  std::vector<int> column_bounds_, head_bounds_, head_column_bounds_, vocab_bounds_;
  int first_kv_head_ = 0, num_kv_heads_ = 0;
  std::vector<int> q_to_kv_;  // this rank's query heads -> this rank's KV heads

  DType embed_dtype_ = DType::kF32;
  Buffer embed_, norm_weight_, norm_bias_;
  LinearWeights lm_head_;
  std::vector<Layer> layers_;

  // Activations of a step, [max_rows, ...].
  Buffer x_, u_, g_, q_, k_, v_, o_, q_b_, k_b_, f_, s_, sg_, gamma_, logit_in_, logits_;
  Buffer max_, sum_, acc_, p_;
  StepRows step_;  // of the plan
};

}  // namespace sessa
