// What every layer with attention has in common: the heads of this rank, the products that give q, k and v,
// the rope, and the activations of a step.
#pragma once

#include <string>

#include "engine/models/layers.h"
#include "engine/models/shards.h"

namespace sessa {

class AttentionPart {
 public:
  struct Weights {
    LinearWeights q, k, v;
  };

  explicit AttentionPart(const ModelRank& rank)
      : rank_(rank), rope_(MakeRopeTable(*rank.config)), heads_(*rank.config, *rank.communicator) {}

  const AttentionHeads& heads() const { return heads_; }
  StateShape Shape() const { return heads_.StateOf(rank_.options.state_dtype); }
  // Rows of q and k that the checkpoint stores half-split: see Loader::Rows.
  Weights Load(const std::string& prefix, bool has_bias, bool half_split, Loader* load) const;
  absl::Status AllocateActivations();
  void BeginStep(StepRows* rows) const {
    rows->inv_freq = rope_.inv_freq;
    rows->rope_scale = rope_.scale;
  }

  // [rows, ...]: of this rank's heads; o of all heads, of which this rank fills its own.
  Matrix q(int rows) const { return heads_.columns.Of(RowsOf(q_, rows, rank_.config->q_size())); }
  Matrix k(int rows) const { return RowsOf(k_, rows, heads_.kv_size()); }
  Matrix v(int rows) const { return RowsOf(v_, rows, heads_.kv_size()); }
  Matrix o(int rows) const { return RowsOf(o_, rows, rank_.config->q_size()); }
  AttendCall AttendTo(LayerState* state, int rows, int window = 0) const {
    return {q(rows), heads_.q_to_kv, heads_.columns.Of(o(rows)), &state->paged[0], &state->paged[1], window};
  }
  AppendCall AppendTo(LayerState* state, int rows) const {
    return {q(rows), k(rows), v(rows), &state->paged[0], &state->paged[1]};
  }
  // Every rank's heads of o.
  void Gather(int rows) const { rank_.communicator->AllGather({{o(rows), heads_.columns.bounds()}}); }

 private:
  const ModelRank rank_;
  const RopeTable rope_;
  const AttentionHeads heads_;
  Buffer q_, k_, v_, o_;  // [max_rows, ...]
};

}  // namespace sessa
