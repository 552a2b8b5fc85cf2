// Sessa's mixer: grouped-query attention gives f; the state s = f + gamma r mixes in all earlier states by a
// second, content-addressed attention. The first is cut by heads, the second's state by tiles dealt out to
// ranks in turn, the solve by columns of s.
#pragma once

#include <string>
#include <vector>

#include "engine/models/attention_part.h"
#include "engine/models/sessa_layers.h"

namespace sessa {

class FeedbackMixer final : public SessaMixer {
 public:
  explicit FeedbackMixer(const ModelRank& rank);

  StateShape Shape() const override;
  void Load(int layer, const std::string& prefix, Loader* load) override;
  absl::Status AllocateActivations() override;
  void BeginStep(StepRows* rows) override;
  void Run(int layer, Matrix u, Matrix g, LayerState* state) override;

 private:
  struct Layer {
    Buffer gamma_ctx, gamma_bias;
    AttentionPart::Weights in;
    LinearWeights q_b, k_b, out;
  };
  // A layer's paged tensors, behind the attention's keys and values.
  enum { kFeedbackKeys = 2, kStates };

  FeedbackReadCall ReadOf(int wave, int rows, const LayerState& state) const;
  void Feedback(Matrix f, Matrix g, LayerState* state);
  void GatherPartials(const FeedbackPartials& partials);
  void GatherRows(const std::vector<RowSpan>& blocks, absl::Span<const Matrix> matrices);

  const ModelRank rank_;
  const float gamma_max_;
  AttentionPart attention_;
  std::vector<Layer> layers_;
  Buffer q_b_, k_b_, f_, s_, gamma_;  // [max_rows, ...]
  Buffer max_, sum_, acc_, p_;
  const StepRows* step_ = nullptr;
};

}  // namespace sessa
