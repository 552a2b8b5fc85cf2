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

}  // namespace

std::unique_ptr<WeightSource> RandomModel(const ModelConfig& config, uint64_t seed, DType dtype) {
  const int D = config.hidden_size, V = config.vocab_size, kv = config.kv_size();
  auto weights = std::make_unique<MemoryWeights>(seed, dtype);
  const double scale = std::sqrt(3.0 / D);
  const auto linear = [&](const std::string& name, int rows) {
    weights->Add(name + ".weight", {rows, D}, 0, scale);
    weights->Add(name + ".bias", {rows}, 0, 0.1);
  };
  const auto norm = [&](const std::string& name) {
    weights->Add(name + ".weight", {D}, 1, 0.2);
    weights->Add(name + ".bias", {D}, 0, 0.1);
  };
  weights->Add("embed.weight", {V, D}, 0, 1);
  for (int n = 0; n < config.num_layers; ++n) {
    const std::string layer = absl::StrCat("layers.", n, "."), mixer = layer + "mixer.";
    norm(layer + "ln");
    linear(layer + "W_in", 2 * D);
    linear(mixer + "q_proj", D);
    linear(mixer + "k_proj", kv);
    linear(mixer + "v_proj", kv);
    if (config.num_heads > 1) weights->Add(mixer + "out_proj.weight", {D, D}, 0, scale);
    linear(mixer + "proj_fb", 2 * D);
    weights->Add(mixer + "gamma_bias", {1}, 0.5, 0.2);
    weights->Add(mixer + "gamma_ctx.weight", {1, D}, 0, scale);
    linear(layer + "W_out", D);
  }
  norm("norm");
  if (!config.tie_word_embeddings) weights->Add("lm_head.weight", {V, D}, 0, scale);
  return weights;
}

}  // namespace sessa
