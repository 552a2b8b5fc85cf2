// The hyper-parameters of a checkpoint (docs/architecture.md, "The model"): what all families have in common,
// and what one of them has alone. Plain data: server/checkpoint fills it from config.json, engine/models and
// the kernels read it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace sessa {

// How the rotary angles of positions beyond those of the training are made. Each changes the frequencies
// alone, so that the state of a token never depends on what follows it.
struct RopeScaling {
  enum class Type { kNone, kLinear, kLlama3, kYarn };
  Type type = Type::kNone;
  double factor = 1;
  int original_max_position_embeddings = 0;          // llama3, yarn
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  std::optional<double> attention_factor;            // yarn; else from the factor
  std::optional<double> mscale, mscale_all_dim;      // yarn
  bool truncate = true;                              // yarn: the corrected range in whole dimensions
};

// The parameters of a Mamba-2 mixer (Dao and Gu, "Transformers are SSMs", 2024).
struct Mamba2Mixer {
  int num_heads = 0, head_dim = 0;  // H, P
  int state_size = 0;               // N
  int num_groups = 1;               // G
  int conv_kernel = 4;              // K
  float norm_eps = 1e-5f;           // of the gated norm
  bool use_bias = false;            // of in_proj and out_proj
  bool use_conv_bias = true;

  int inner_size() const { return num_heads * head_dim; }                       // I
  int conv_size() const { return inner_size() + 2 * num_groups * state_size; }  // of x, B and C
};

// Sessa's block: the mixer stands between gelu and gate. The two others are the baselines that the paper
// measures it beside.
struct SessaConfig {
  enum class Mixer { kFeedback, kAttention, kMamba2 };
  Mixer mixer = Mixer::kFeedback;
  float gamma_max = 0.999f;  // kFeedback
  Mamba2Mixer mamba;         // kMamba2
};

// llama, mistral, qwen2 and qwen3.
struct LlamaConfig {
  int intermediate_size = 0;
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  bool qk_norm = false;      // rms of each head of q and k
  std::vector<int> windows;  // [num_layers], tokens that a token sees, itself included; 0: all. Empty: all 0
};

struct Mamba2Config {
  Mamba2Mixer mixer;
};

struct ModelConfig {
  std::string model_type = "sessa";  // as config.json has it
  int vocab_size = 0;                // V
  int hidden_size = 0;               // D
  int num_layers = 0;                // L
  // Of attention; 0 heads: the model has none.
  int num_heads = 0;           // H
  int num_kv_heads = 0;        // K
  int attention_head_dim = 0;  // 0: D / H
  bool use_forward_rope = true;
  float rope_theta = 10000.0f;
  RopeScaling rope_scaling;
  float norm_eps = 1e-5f;
  bool tie_word_embeddings = true;
  int max_position_embeddings = 4096;
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none
  std::variant<SessaConfig, LlamaConfig, Mamba2Config> family;

  int head_dim() const {
    return attention_head_dim > 0 ? attention_head_dim : num_heads > 0 ? hidden_size / num_heads : 0;
  }
  int q_size() const { return num_heads * head_dim(); }
  int kv_size() const { return num_kv_heads * head_dim(); }
  // The Mamba-2 mixer of its layers, or null.
  const Mamba2Mixer* mamba() const;
  // Whether layers attend to a cache of keys and values.
  bool has_attention() const { return mamba() == nullptr; }
  // Whether what they keep of a sequence is one state, which cannot go back, and not something of each token.
  bool is_recurrent() const { return mamba() != nullptr; }

  // INVALID_ARGUMENT, naming the key of config.json, when a value is out of range or two do not fit together.
  absl::Status Validate() const;
};

// 1 / theta^(2 i / d) of pair i of a head, scaled; empty: no rope. And what cosines and sines are multiplied
// with. As the published layers compute them, in float32.
struct RopeTable {
  std::vector<float> inv_freq;  // [head_dim / 2]
  float scale = 1;
};
RopeTable MakeRopeTable(const ModelConfig& config);

}  // namespace sessa
