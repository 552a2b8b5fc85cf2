// The paper's Transformer baseline: Sessa's block with attention alone as its mixer, which is Sessa without
// feedback (gamma = 0: s = f).
#pragma once

#include <string>
#include <vector>

#include "engine/models/attention_part.h"
#include "engine/models/sessa_layers.h"

namespace sessa {

class AttentionMixer final : public SessaMixer {
 public:
  explicit AttentionMixer(const ModelRank& rank) : rank_(rank), attention_(rank) {}

  StateShape Shape() const override { return attention_.Shape(); }
  void Load(int layer, const std::string& prefix, Loader* load) override;
  absl::Status AllocateActivations() override { return attention_.AllocateActivations(); }
  void BeginStep(StepRows* rows) override { attention_.BeginStep(rows); }
  void Run(int layer, Matrix u, Matrix g, LayerState* state) override;

 private:
  struct Layer {
    AttentionPart::Weights in;
    LinearWeights out;
  };

  const ModelRank rank_;
  AttentionPart attention_;
  std::vector<Layer> layers_;
};

}  // namespace sessa
