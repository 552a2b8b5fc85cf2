// Weights set by hand: a model whose state has a closed form.
#pragma once

#include <cmath>
#include <initializer_list>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/config.h"
#include "engine/weights.h"

namespace sessa {

class MapWeights final : public WeightSource {
 public:
  void Set(const std::string& name, std::vector<int64_t> shape, std::vector<float> values) {
    tensors_[name] = {std::move(shape), std::move(values)};
  }
  absl::StatusOr<TensorView> Get(std::string_view name) const override {
    const auto it = tensors_.find(std::string(name));
    if (it == tensors_.end()) return absl::NotFoundError(absl::StrCat("no tensor ", std::string(name)));
    return TensorView{DType::kF32, it->second.first, it->second.second.data()};
  }

 private:
  std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>> tensors_;
};

// One layer whose f is 1 in channel 0 at tokens with id 1 and 0 elsewhere, whose feedback attention is
// uniform (q_b = 0) and whose gamma is c, so that its s has a closed form (ExpectedImpulseResponse). The
// output shows s: the layer adds kImpulseGain * s_0 along a direction that the embedding has not, and after
// the final norm the difference of the two logits is kImpulseScale * a / sqrt(1 + a^2 + eps) for a =
// kImpulseGain * s_0.
inline constexpr int kImpulseD = 16;
inline constexpr double kImpulseGain = 50, kImpulseScale = 8;

// s_0 of token t for an impulse of height 1 at token tau < t. The sum S of s up to t grows by the factor (1 +
// c / t), and s_t = (c / t) S_{t-1}: a ratio of gamma functions, about c t^(c-1) tau^(-c).
inline double ExpectedImpulseResponse(double c, int tau, int t) {
  return c / t *
         std::exp(std::lgamma(t + c) - std::lgamma(t) + std::lgamma(tau + 1.0) - std::lgamma(tau + 1 + c));
}

// s_0 from the difference of the logits of ids 0 and 1.
inline double ImpulseResponseOf(double logit_difference, double norm_eps) {
  const double y = logit_difference / kImpulseScale;
  return std::sqrt(y * y * (1 + norm_eps) / (1 - y * y)) / kImpulseGain;
}

inline ModelConfig ImpulseConfig(int max_tokens) {
  ModelConfig config;
  config.hidden_size = kImpulseD;
  config.num_heads = config.num_kv_heads = config.num_layers = 1;
  config.vocab_size = 2;
  config.use_forward_rope = false;
  config.tie_word_embeddings = false;
  config.max_position_embeddings = max_tokens;
  return config;
}

inline MapWeights ImpulseWeights(const ModelConfig& config, float c) {
  const int D = kImpulseD;
  MapWeights w;
  std::vector<float> embed(2 * D);
  for (int i = 0; i < D; ++i) embed[i] = i % 2 == 0 ? 1 : -1, embed[D + i] = -embed[i];
  std::vector<float> shown(D), head(2 * D),
      w_out(D * D);  // shown: at right angles to both embeddings, mean 0, variance 1
  for (int i = 0; i < D; ++i) {
    shown[i] = i % 4 < 2 ? 1 : -1;
    head[i] = static_cast<float>(kImpulseScale / D) * shown[i];
    w_out[i * D] = static_cast<float>(kImpulseGain) * shown[i];
  }
  const auto matrix = [&](int n, std::initializer_list<std::tuple<int, int, float>> entries) {
    std::vector<float> m(n * D);
    for (auto [row, column, value] : entries) m[row * D + column] = value;
    return m;
  };
  const auto linear = [&](const std::string& name, int n, std::vector<float> weight,
                          std::vector<float> bias = {}) {
    bias.resize(n);
    w.Set(name + ".weight", {n, D}, std::move(weight));
    w.Set(name + ".bias", {n}, std::move(bias));
  };
  w.Set("embed.weight", {2, D}, embed);
  w.Set("lm_head.weight", {2, D}, head);
  w.Set("norm.weight", {D}, std::vector<float>(D, 1));
  w.Set("norm.bias", {D}, std::vector<float>(D));
  w.Set("layers.0.ln.weight", {D}, std::vector<float>(D, 1));
  w.Set("layers.0.ln.bias", {D}, std::vector<float>(D));
  std::vector<float> gate(2 * D);
  gate[D] = 1;  // of channel 0, for every token
  linear("layers.0.W_in", 2 * D, matrix(2 * D, {{0, 0, 10}, {1, 0, -10}}),
         gate);                                                            // u_0 marks id 0, u_1 marks id 1
  linear("layers.0.mixer.q_proj", D, matrix(D, {{0, 0, -3}, {0, 1, 3}}));  // equal ids attract, others repel,
  linear("layers.0.mixer.k_proj", D, matrix(D, {{0, 0, -3}, {0, 1, 3}}));  // beyond exp's range
  linear("layers.0.mixer.v_proj", D, matrix(D, {{0, 1, 0.1f}}));
  linear("layers.0.mixer.proj_fb", 2 * D,
         matrix(2 * D, {{D, 0, 1}, {D + 1, 1, 1}}));  // q_b = 0, k_b whatever
  w.Set("layers.0.mixer.gamma_ctx.weight", {1, D}, std::vector<float>(D));
  w.Set("layers.0.mixer.gamma_bias", {1}, {std::atanh(c / std::get<SessaConfig>(config.family).gamma_max)});
  linear("layers.0.W_out", D, w_out);
  return w;
}

}  // namespace sessa
