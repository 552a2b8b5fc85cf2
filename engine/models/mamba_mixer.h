// The Mamba-2 mixer (Dao and Gu, "Transformers are SSMs", 2024), as Hugging Face's checkpoints have it:
//   [z | xBC | dt] = in in_proj^T;  y = scan(conv(xBC), dt) * silu(z)  (kernels/scan.h)
//   out = (rms over each group of y, times norm.weight) out_proj^T
// Cut by heads: a rank has z, x and dt of its own heads, and B and C of all groups, which are few columns.
#pragma once

#include <string>
#include <vector>

#include "engine/models/layers.h"
#include "engine/models/shards.h"

namespace sessa {

class MambaMixer {
 public:
  explicit MambaMixer(const ModelRank& rank);

  StateShape Shape() const;
  // The next layer's; names begin with `prefix`.
  void Load(const std::string& prefix, Loader* load);
  absl::Status AllocateActivations();
  // in [rows, D] through the norm, all of it; out: this rank's columns of D, by the epilogue.
  void Run(int layer, Matrix in, const Norm& norm, Matrix out, Epilogue epilogue, LayerState* state);

 private:
  struct Layer {
    Buffer conv_weight, conv_bias, a_log, d, dt_bias, norm;
    LinearWeights z, x, bc, dt, out;
  };
  ScanShape ShapeOfScan() const;
  // conv1d's weight [channels, 1, K] as [K][this rank's channels], or its bias.
  Buffer LoadConv(const std::string& name, int taps, Loader* load) const;

  const ModelRank rank_;
  const Mamba2Mixer& config_;
  const Shard heads_, inner_;    // of H and I
  std::vector<int> head_group_;  // of this rank's heads
  std::vector<Layer> layers_;
  Buffer z_, xbc_, dt_, y_;  // [max_rows, ...]
};

}  // namespace sessa
