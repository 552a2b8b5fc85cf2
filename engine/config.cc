// Range checks of ModelConfig. Invariant: once Validate is OK, sizes such as 2 * D, V or K * d fit an int and
// products of two of them an int64_t, so that engine and kernels need no overflow checks of their own.
#include "engine/config.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

constexpr int kMaxHiddenSize = 65536;
constexpr int kMaxVocabSize = 4 << 20;
constexpr int kMaxLayers = 1024;
constexpr int kMaxPositions = 1 << 28;
constexpr int kMaxInnerSize = 1 << 20;
constexpr int kMaxStateSize = 4096;
constexpr int kMaxTaps = 16;
constexpr const char* kEpsilonKeys[] = {"layer_norm_eps", "rms_norm_eps", "layer_norm_epsilon"};

absl::Status InRange(const char* key, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(key, " is ", value, ", must be from ", min, " to ", max));
}

absl::Status Bad(const char* key, double value, const char* rule) {
  return absl::InvalidArgumentError(absl::StrCat(key, " is ", value, ", must be ", rule));
}

absl::Status CheckAttention(const ModelConfig& c) {
  absl::Status status = InRange("num_attention_heads", c.num_heads, 1, kMaxHiddenSize);
  status.Update(InRange("num_key_value_heads", c.num_kv_heads, 1, c.num_heads));
  status.Update(InRange("head_dim", c.attention_head_dim, 0, kMaxHiddenSize));
  if (!status.ok()) return status;
  if (c.attention_head_dim == 0 && c.hidden_size % c.num_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_attention_heads is ", c.num_heads, ", must divide hidden_size ", c.hidden_size));
  }
  if (c.num_heads % c.num_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_key_value_heads is ", c.num_kv_heads,
                                                   ", must divide num_attention_heads ", c.num_heads));
  }
  status = InRange("head_dim * num_attention_heads", int64_t{c.head_dim()} * c.num_heads, 1, kMaxInnerSize);
  if (!status.ok()) return status;
  if (c.use_forward_rope && c.head_dim() % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rotary positions (use_forward_rope) need an even head size; hidden_size / num_attention_heads is ",
        c.head_dim()));
  }
  if (!(std::isfinite(c.rope_theta) && c.rope_theta >= 1))
    return Bad("rope_theta", c.rope_theta, "finite and at least 1");
  return absl::OkStatus();
}

absl::Status CheckRopeScaling(const RopeScaling& s) {
  using Type = RopeScaling::Type;
  if (s.type == Type::kNone) return absl::OkStatus();
  if (!(std::isfinite(s.factor) && s.factor >= 1))
    return Bad("rope scaling: factor", s.factor, "finite and at least 1");
  if (s.type == Type::kLinear) return absl::OkStatus();
  absl::Status status = InRange("rope scaling: original_max_position_embeddings",
                                s.original_max_position_embeddings, 1, kMaxPositions);
  if (s.type == Type::kLlama3) {
    if (!(s.low_freq_factor > 0 && std::isfinite(s.low_freq_factor)))
      status.Update(Bad("rope scaling: low_freq_factor", s.low_freq_factor, "finite and above 0"));
    if (!(s.high_freq_factor > s.low_freq_factor && std::isfinite(s.high_freq_factor)))
      status.Update(
          Bad("rope scaling: high_freq_factor", s.high_freq_factor, "finite and above low_freq_factor"));
    return status;
  }
  if (!(s.beta_slow > 0 && std::isfinite(s.beta_slow)))
    status.Update(Bad("rope scaling: beta_slow", s.beta_slow, "finite and above 0"));
  if (!(s.beta_fast >= s.beta_slow && std::isfinite(s.beta_fast)))
    status.Update(Bad("rope scaling: beta_fast", s.beta_fast, "finite and at least beta_slow"));
  for (const auto& [key, value] : {std::pair{"rope scaling: attention_factor", s.attention_factor},
                                   {"rope scaling: mscale", s.mscale},
                                   {"rope scaling: mscale_all_dim", s.mscale_all_dim}}) {
    if (value.has_value() && !(*value >= 0 && *value <= 1e6)) status.Update(Bad(key, *value, "in [0, 1e6]"));
  }
  return status;
}

absl::Status CheckMamba(const Mamba2Mixer& m) {
  absl::Status status = InRange("num_heads", m.num_heads, 1, kMaxHiddenSize);
  status.Update(InRange("head_dim", m.head_dim, 1, kMaxHiddenSize));
  status.Update(InRange("state_size", m.state_size, 1, kMaxStateSize));
  status.Update(InRange("n_groups", m.num_groups, 1, m.num_heads));
  status.Update(InRange("conv_kernel", m.conv_kernel, 2, kMaxTaps));
  if (!status.ok()) return status;
  status.Update(InRange("num_heads * head_dim", int64_t{m.num_heads} * m.head_dim, 1, kMaxInnerSize));
  status.Update(InRange("n_groups * state_size", int64_t{m.num_groups} * m.state_size, 1, kMaxInnerSize));
  if (!(m.norm_eps > 0 && m.norm_eps <= 1)) status.Update(Bad("norm_eps", m.norm_eps, "in (0, 1]"));
  if (m.num_heads % m.num_groups != 0) {
    status.Update(absl::InvalidArgumentError(
        absl::StrCat("n_groups is ", m.num_groups, ", must divide num_heads ", m.num_heads)));
  }
  return status;
}

absl::Status CheckFamily(const ModelConfig& config, const SessaConfig& c) {
  if (!(c.gamma_max >= 0 && c.gamma_max < 1)) return Bad("gamma_max", c.gamma_max, "in [0, 1)");
  if (config.attention_head_dim != 0)
    return Bad("head_dim", config.attention_head_dim, "left out: it is hidden_size / num_attention_heads");
  if (c.mixer == SessaConfig::Mixer::kAttention && config.num_heads < 2)
    return Bad("num_attention_heads", config.num_heads, "at least 2 where the mixer is attention");
  return absl::OkStatus();
}

absl::Status CheckFamily(const ModelConfig& config, const LlamaConfig& c) {
  absl::Status status = InRange("intermediate_size", c.intermediate_size, 1, kMaxInnerSize);
  for (int window : c.windows) status.Update(InRange("sliding_window", window, 0, kMaxPositions));
  if (!c.windows.empty() && static_cast<int>(c.windows.size()) != config.num_layers)
    status.Update(Bad("layer_types", static_cast<double>(c.windows.size()), "one for each layer"));
  return status;
}

absl::Status CheckFamily(const ModelConfig&, const Mamba2Config&) { return absl::OkStatus(); }

}  // namespace

const Mamba2Mixer* ModelConfig::mamba() const {
  if (const auto* mamba2 = std::get_if<Mamba2Config>(&family)) return &mamba2->mixer;
  const auto* sessa = std::get_if<SessaConfig>(&family);
  return sessa != nullptr && sessa->mixer == SessaConfig::Mixer::kMamba2 ? &sessa->mamba : nullptr;
}

absl::Status ModelConfig::Validate() const {
  absl::Status status = InRange("vocab_size", vocab_size, 1, kMaxVocabSize);
  status.Update(InRange("hidden_size", hidden_size, 1, kMaxHiddenSize));
  status.Update(InRange("num_hidden_layers", num_layers, 1, kMaxLayers));
  status.Update(InRange("max_position_embeddings", max_position_embeddings, 1, kMaxPositions));
  if (!status.ok()) return status;
  status = mamba() != nullptr ? CheckMamba(*mamba()) : CheckAttention(*this);
  if (!status.ok()) return status;
  // Written so that NaN fails too.
  if (!(norm_eps > 0 && norm_eps <= 1)) return Bad(kEpsilonKeys[family.index()], norm_eps, "in (0, 1]");
  status = std::visit([this](const auto& c) { return CheckFamily(*this, c); }, family);
  status.Update(CheckRopeScaling(rope_scaling));
  if (!status.ok()) return status;
  for (int32_t id : eos_token_ids) {
    if (auto s = InRange("eos_token_id", id, 0, vocab_size - 1); !s.ok()) return s;
  }
  return InRange("bos_token_id", bos_token_id, -1, vocab_size - 1);
}

}  // namespace sessa
