// Range checks of ModelConfig. Invariant: once Validate is OK, sizes such as 2 * D, V or K * d fit an int and
// products of two of them an int64_t, so that engine and kernels need no overflow checks of their own.
#include "engine/config.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

constexpr int kMaxHiddenSize = 65536;
constexpr int kMaxVocabSize = 4 << 20;
constexpr int kMaxLayers = 1024;
constexpr int kMaxPositions = 1 << 28;

absl::Status InRange(const char* key, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(key, " is ", value, ", must be from ", min, " to ", max));
}

absl::Status Bad(const char* key, double value, const char* rule) {
  return absl::InvalidArgumentError(absl::StrCat(key, " is ", value, ", must be ", rule));
}

}  // namespace

absl::Status ModelConfig::Validate() const {
  absl::Status status = InRange("vocab_size", vocab_size, 1, kMaxVocabSize);
  status.Update(InRange("hidden_size", hidden_size, 1, kMaxHiddenSize));
  status.Update(InRange("num_hidden_layers", num_layers, 1, kMaxLayers));
  status.Update(InRange("num_attention_heads", num_heads, 1, hidden_size));
  status.Update(InRange("num_key_value_heads", num_kv_heads, 1, num_heads));
  status.Update(InRange("max_position_embeddings", max_position_embeddings, 1, kMaxPositions));
  if (!status.ok()) return status;
  if (hidden_size % num_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_attention_heads is ", num_heads, ", must divide hidden_size ", hidden_size));
  }
  if (num_heads % num_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_key_value_heads is ", num_kv_heads,
                                                   ", must divide num_attention_heads ", num_heads));
  }
  if (use_forward_rope && head_dim() % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "use_forward_rope needs an even head size; hidden_size / num_attention_heads is ", head_dim()));
  }
  // Written so that NaN fails too.
  if (!(layer_norm_eps > 0 && layer_norm_eps <= 1)) return Bad("layer_norm_eps", layer_norm_eps, "in (0, 1]");
  if (!(gamma_max >= 0 && gamma_max < 1)) return Bad("gamma_max", gamma_max, "in [0, 1)");
  if (!(std::isfinite(rope_theta) && rope_theta >= 1))
    return Bad("rope_theta", rope_theta, "finite and at least 1");
  for (int32_t id : eos_token_ids) {
    if (auto s = InRange("eos_token_id", id, 0, vocab_size - 1); !s.ok()) return s;
  }
  return InRange("bos_token_id", bos_token_id, -1, vocab_size - 1);
}

}  // namespace sessa
