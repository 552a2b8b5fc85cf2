// Mamba-2 as Hugging Face publishes it: x += mixer(rms(x; norm)), without positions.
#pragma once

#include "absl/strings/str_cat.h"
#include "engine/models/layers.h"
#include "engine/models/mamba_mixer.h"

namespace sessa {

class MambaLayers final : public Layers {
 public:
  explicit MambaLayers(const ModelRank& rank) : rank_(rank), mixer_(rank) {}

  StateShape Shape(int) const override { return mixer_.Shape(); }
  void Load(int layer, Loader* load) override {
    const std::string prefix = absl::StrCat("backbone.layers.", layer, ".");
    norms_.push_back(load->Vector(prefix + "norm.weight", {rank_.config->hidden_size}));
    mixer_.Load(prefix + "mixer.", load);
  }
  absl::Status AllocateActivations() override { return mixer_.AllocateActivations(); }
  void Run(int layer, Matrix x, LayerState* state) override {
    mixer_.Run(layer, x, {Norm::Kind::kRms, &norms_[layer], nullptr, rank_.config->norm_eps},
               rank_.columns.Of(x), Epilogue::kAdd, state);
    rank_.communicator->AllGather({{x, rank_.columns.bounds()}});
  }

 private:
  const ModelRank rank_;
  MambaMixer mixer_;
  std::vector<Buffer> norms_;
};

}  // namespace sessa
