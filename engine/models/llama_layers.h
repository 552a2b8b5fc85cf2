// The Llama family: llama, mistral, qwen2, qwen3 as Hugging Face publishes them (Touvron et al., 2023; Jiang
// et al., 2023; the Qwen reports). With rms(x; w) = x / sqrt(mean x^2 + eps) * w:
//   h = rms(x; input_layernorm);  q, k, v = h W^T (+ b);  [qwen3: rms over each head of q and k];  rope
//   x += o_proj(grouped-query attention, in a window where the layer has one)
//   h = rms(x; post_attention_layernorm);  x += down(silu(gate h) * up h)
// Cut by heads and by output columns.
#pragma once

#include <vector>

#include "engine/models/attention_part.h"
#include "engine/models/layers.h"
#include "engine/models/shards.h"

namespace sessa {

class LlamaLayers final : public Layers {
 public:
  explicit LlamaLayers(const ModelRank& rank);

  StateShape Shape(int) const override { return attention_.Shape(); }
  void Load(int layer, Loader* load) override;
  absl::Status AllocateActivations() override;
  void BeginStep(StepRows* rows) override { attention_.BeginStep(rows); }
  void Run(int layer, Matrix x, LayerState* state) override;

 private:
  struct Layer {
    Buffer attention_norm, mlp_norm, q_norm, k_norm;
    AttentionPart::Weights in;
    LinearWeights o, gate, up, down;
    int window;
  };
  Norm RmsOf(const Buffer& weight) const {
    return {Norm::Kind::kRms, &weight, nullptr, rank_.config->norm_eps};
  }

  const ModelRank rank_;
  const LlamaConfig& config_;
  const Shard inner_;  // of the MLP
  AttentionPart attention_;
  std::vector<Layer> layers_;
  Buffer h_;  // [max_rows, I]
};

}  // namespace sessa
