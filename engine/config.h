// The hyper-parameters of a Sessa checkpoint (docs/architecture.md, "The model"). Plain data: server/checkpoint fills it
// from config.json, engine and kernels read it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace sessa {

struct ModelConfig {
  int vocab_size = 0;    // V
  int hidden_size = 0;   // D
  int num_layers = 0;    // L
  int num_heads = 0;     // H
  int num_kv_heads = 0;  // K
  float layer_norm_eps = 1e-5f;
  bool use_forward_rope = true;
  float rope_theta = 10000.0f;
  float gamma_max = 0.999f;
  bool tie_word_embeddings = true;
  int max_position_embeddings = 4096;
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none

  int head_dim() const { return hidden_size / num_heads; }
  int kv_size() const { return num_kv_heads * head_dim(); }

  // INVALID_ARGUMENT, naming the key of config.json, when a value is out of range or two do not fit together.
  absl::Status Validate() const;
};

}  // namespace sessa
