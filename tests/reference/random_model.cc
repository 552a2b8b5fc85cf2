// See random_model.h. Matrices are scaled by 1 / sqrt(columns), norm weights lie around 1, biases around 0.
#include "tests/reference/random_model.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

class MemoryWeights : public WeightSource {
 public:
  MemoryWeights(uint64_t seed, DType dtype) : random_(seed), dtype_(dtype) {}

  // Values mean + scale * uniform(-1, 1), rounded to bf16.
  void Add(const std::string& name, std::vector<int64_t> shape, double mean, double scale) {
    size_t n = 1;
    for (int64_t size : shape) n *= size;
    Entry& entry = entries_[name];
    entry.shape = std::move(shape);
    entry.bytes.resize(n * SizeOf(dtype_));
    for (size_t i = 0; i < n; ++i) {
      const double unit =
          static_cast<double>(random_() >> 11) * 0x1p-53;  // [0, 1), the same on every platform
      const auto value = static_cast<float>(mean + scale * (2 * unit - 1));
      const uint16_t top = (std::bit_cast<uint32_t>(value) + 0x8000u) >> 16;
      const uint32_t full = uint32_t{top} << 16;
      if (dtype_ == DType::kBF16) {
        std::memcpy(&entry.bytes[2 * i], &top, 2);
      } else {
        std::memcpy(&entry.bytes[4 * i], &full, 4);
      }
    }
  }

  absl::StatusOr<TensorView> Get(std::string_view name) const override {
    const auto it = entries_.find(std::string(name));
    if (it == entries_.end()) return absl::NotFoundError(absl::StrCat("no tensor ", std::string(name)));
    return TensorView{dtype_, it->second.shape, it->second.bytes.data()};
  }

 private:
  struct Entry {
    std::vector<int64_t> shape;
    std::vector<char> bytes;
  };
  std::mt19937_64 random_;
  DType dtype_;
  std::map<std::string, Entry> entries_;
};

// Tensors by the names and shapes that config.json asks for.
class Adder {
 public:
  explicit Adder(MemoryWeights* weights) : weights_(weights) {}
  void Linear(const std::string& name, int rows, int columns, bool bias) {
    weights_->Add(name + ".weight", {rows, columns}, 0, std::sqrt(3.0 / columns));
    if (bias) weights_->Add(name + ".bias", {rows}, 0, 0.1);
  }
  void Norm(const std::string& name, int size, bool bias) {
    weights_->Add(name + ".weight", {size}, 1, 0.2);
    if (bias) weights_->Add(name + ".bias", {size}, 0, 0.1);
  }
  void Attention(const std::string& prefix, const ModelConfig& config, bool bias) {
    const int D = config.hidden_size;
    Linear(prefix + "q_proj", config.q_size(), D, bias);
    Linear(prefix + "k_proj", config.kv_size(), D, bias);
    Linear(prefix + "v_proj", config.kv_size(), D, bias);
  }
  void Mamba(const std::string& prefix, const Mamba2Mixer& mixer, int D) {
    const int I = mixer.inner_size(), H = mixer.num_heads, channels = mixer.conv_size();
    Linear(prefix + "in_proj", I + channels + H, D, mixer.use_bias);
    weights_->Add(prefix + "conv1d.weight", {channels, 1, mixer.conv_kernel}, 0.3, 0.5);
    if (mixer.use_conv_bias) weights_->Add(prefix + "conv1d.bias", {channels}, 0, 0.1);
    weights_->Add(prefix + "A_log", {H}, 0, 1);
    weights_->Add(prefix + "D", {H}, 1, 0.5);
    weights_->Add(prefix + "dt_bias", {H}, -2, 1);
    Norm(prefix + "norm", I, false);
    Linear(prefix + "out_proj", D, I, mixer.use_bias);
  }
  void Layer(int n, const ModelConfig& config, const SessaConfig& sessa) {
    const int D = config.hidden_size;
    const std::string layer = absl::StrCat("layers.", n, "."), mixer = layer + "mixer.";
    Norm(layer + "ln", D, true);
    Linear(layer + "W_in", 2 * D, D, true);
    if (sessa.mixer == SessaConfig::Mixer::kMamba2) {
      Mamba(mixer, sessa.mamba, D);
    } else {
      Attention(mixer, config, true);
      if (config.num_heads > 1) Linear(mixer + "out_proj", D, D, false);
    }
    if (sessa.mixer == SessaConfig::Mixer::kFeedback) {
      Linear(mixer + "proj_fb", 2 * D, D, true);
      weights_->Add(mixer + "gamma_bias", {1}, 0.5, 0.2);
      weights_->Add(mixer + "gamma_ctx.weight", {1, D}, 0, std::sqrt(3.0 / D));
    }
    Linear(layer + "W_out", D, D, true);
  }
  void Layer(int n, const ModelConfig& config, const LlamaConfig& llama) {
    const int D = config.hidden_size, I = llama.intermediate_size;
    const std::string layer = absl::StrCat("model.layers.", n, "."), attention = layer + "self_attn.";
    Norm(layer + "input_layernorm", D, false);
    Attention(attention, config, llama.qkv_bias);
    if (llama.qk_norm) {
      Norm(attention + "q_norm", config.head_dim(), false);
      Norm(attention + "k_norm", config.head_dim(), false);
    }
    Linear(attention + "o_proj", D, config.q_size(), llama.out_bias);
    Norm(layer + "post_attention_layernorm", D, false);
    Linear(layer + "mlp.gate_proj", I, D, llama.mlp_bias);
    Linear(layer + "mlp.up_proj", I, D, llama.mlp_bias);
    Linear(layer + "mlp.down_proj", D, I, llama.mlp_bias);
  }
  void Layer(int n, const ModelConfig& config, const Mamba2Config& mamba) {
    const std::string layer = absl::StrCat("backbone.layers.", n, ".");
    Norm(layer + "norm", config.hidden_size, false);
    Mamba(layer + "mixer.", mamba.mixer, config.hidden_size);
  }

 private:
  MemoryWeights* const weights_;
};

}  // namespace

std::unique_ptr<WeightSource> RandomModel(const ModelConfig& config, uint64_t seed, DType dtype) {
  constexpr const char* kEmbed[] = {"embed", "model.embed_tokens", "backbone.embeddings"};
  constexpr const char* kNorm[] = {"norm", "model.norm", "backbone.norm_f"};
  const int D = config.hidden_size, V = config.vocab_size;
  const size_t family = config.family.index();
  auto weights = std::make_unique<MemoryWeights>(seed, dtype);
  Adder add(weights.get());
  weights->Add(absl::StrCat(kEmbed[family], ".weight"), {V, D}, 0, 1);
  for (int n = 0; n < config.num_layers; ++n)
    std::visit([&](const auto& own) { add.Layer(n, config, own); }, config.family);
  add.Norm(kNorm[family], D, std::holds_alternative<SessaConfig>(config.family));
  if (!config.tie_word_embeddings) weights->Add("lm_head.weight", {V, D}, 0, std::sqrt(3.0 / D));
  return weights;
}

}  // namespace sessa
