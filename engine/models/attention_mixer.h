// The paper's Transformer baseline: Sessa's block with attention alone as its mixer, which is Sessa without
// feedback (gamma = 0: s = f).
#pragma once

#include <string>
#include <vector>

#include "engine/models/sessa_layers.h"

namespace sessa {

class AttentionMixer final : public SessaMixer {
 public:
  explicit AttentionMixer(const ModelRank& rank);

  StateShape Shape() const override;
  void Load(int layer, const std::string& prefix, Loader* load) override;
  absl::Status AllocateActivations() override;
  void BeginStep(StepRows* rows) override;
  void Run(int layer, Matrix u, Matrix g, LayerState* state) override;

 private:
  struct Layer {
    LinearWeights q, k, v, out;
  };

  const ModelRank rank_;
  const RopeTable rope_;
  const Shard columns_;  // of D
  const AttentionHeads heads_;
  std::vector<Layer> layers_;
  Buffer q_, k_, v_, o_;  // [max_rows, ...]
};

}  // namespace sessa
