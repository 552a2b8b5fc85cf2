// The oracle: a Sessa model in double precision, straight from the equations, one sequence from position 0.
// It is slow on purpose: no blocking and no cache, so that a reader can check it against the paper.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/weights.h"

namespace sessa {

// What one layer computed; row-major.
struct ReferenceLayer {
  std::vector<double> hidden;    // [T, D] the layer's output
  std::vector<double> k_f, v_f;  // [T, K, d], k_f after rope
  std::vector<double> k_b, s;    // [T, D]
};

struct ReferenceOutput {
  std::vector<ReferenceLayer> layers;
  std::vector<double> logits;  // [T, V]
};

// Copies nothing: `weights` must outlive it. Thread-safe.
class ReferenceModel {
 public:
  ReferenceModel(const ModelConfig& config, const WeightSource& weights)
      : config_(config), weights_(weights) {}

  // Fails when a weight is missing or of a wrong shape. Requires: 0 <= id < V for every id.
  absl::StatusOr<ReferenceOutput> Forward(const std::vector<int32_t>& token_ids) const;

 private:
  ModelConfig config_;
  const WeightSource& weights_;
};

// A weight as doubles; INVALID_ARGUMENT, naming the tensor, when its shape is not `shape`.
absl::StatusOr<std::vector<double>> ReadWeight(const WeightSource& weights, const std::string& name,
                                               const std::vector<int64_t>& shape);

}  // namespace sessa
