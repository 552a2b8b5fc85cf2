// Sessa's block (docs/architecture.md, "The model"): layer norm, a product that gives u (by gelu) and a gate,
// a mixer on u whose output the gate multiplies, and a product back onto the residual. The mixer is Sessa's
// feedback path, or one of the baselines that the paper measures it beside: attention alone, or Mamba-2.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/models/layers.h"
#include "engine/models/shards.h"

namespace sessa {

// What stands between gelu and gate. Every matrix is full width; a rank fills its columns and gathers the
// rest where it is needed.
class SessaMixer {
 public:
  virtual ~SessaMixer() = default;
  virtual StateShape Shape() const = 0;
  virtual void Load(int layer, const std::string& prefix, Loader* load) = 0;
  virtual absl::Status AllocateActivations() = 0;
  virtual void BeginStep(StepRows*) {}
  // g [rows, D], of which this rank has its columns, becomes g * mixer(u), whole.
  virtual void Run(int layer, Matrix u, Matrix g, LayerState* state) = 0;
};

class SessaLayers final : public Layers {
 public:
  SessaLayers(const ModelRank& rank, std::unique_ptr<SessaMixer> mixer);

  StateShape Shape(int) const override { return mixer_->Shape(); }
  void Load(int layer, Loader* load) override;
  absl::Status AllocateActivations() override;
  void BeginStep(StepRows* rows) override { mixer_->BeginStep(rows); }
  void Run(int layer, Matrix x, LayerState* state) override;

 private:
  struct Layer {
    Buffer norm_weight, norm_bias;
    LinearWeights u, g, out;
  };

  const ModelRank rank_;
  const std::unique_ptr<SessaMixer> mixer_;
  std::vector<Layer> layers_;
  Buffer u_, g_;
};

std::unique_ptr<Layers> MakeSessaLayers(const ModelRank& rank);

}  // namespace sessa
