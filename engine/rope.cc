// The rotary frequencies of Su et al., "RoFormer", and what published checkpoints scale them by: linear
// (Chen et al., "Position Interpolation"), llama3 (Llama 3.1's model card) and yarn (Peng et al., "YaRN"),
// with the roundings of the transformers package.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/config.h"

namespace sessa {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

float Llama3(float inv_freq, const RopeScaling& s) {
  const double wavelength = kTwoPi / inv_freq, context = s.original_max_position_embeddings;
  if (wavelength < context / s.high_freq_factor) return inv_freq;
  if (wavelength > context / s.low_freq_factor) return static_cast<float>(inv_freq / s.factor);
  const double smooth = (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return static_cast<float>((1 - smooth) * inv_freq / s.factor + smooth * inv_freq);
}

// How far pair i is interpolated: 0 below `low`, 1 from `high` on.
struct YarnRamp {
  YarnRamp(const RopeScaling& s, double theta, int dim) {
    const auto pair_of = [&](double rotations) {  // which turns so often within the trained context
      return dim * std::log(s.original_max_position_embeddings / (rotations * kTwoPi)) /
             (2 * std::log(theta));
    };
    low = pair_of(s.beta_fast), high = pair_of(s.beta_slow);
    if (s.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0), high = std::min<double>(high, dim - 1);
    if (low == high) high += 0.001;
  }
  double At(int i) const { return std::clamp((i - low) / (high - low), 0.0, 1.0); }
  double low, high;
};

float YarnScale(const RopeScaling& s) {
  const auto scale = [&](double m) { return s.factor <= 1 ? 1 : 0.1 * m * std::log(s.factor) + 1; };
  if (s.attention_factor.has_value()) return static_cast<float>(*s.attention_factor);
  if (s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0)
    return static_cast<float>(scale(*s.mscale) / scale(*s.mscale_all_dim));
  return static_cast<float>(scale(1));
}

}  // namespace

RopeTable MakeRopeTable(const ModelConfig& config) {
  RopeTable table;
  if (!config.use_forward_rope || !config.has_attention()) return table;
  const RopeScaling& scaling = config.rope_scaling;
  const int dim = config.head_dim();
  const YarnRamp ramp(scaling, config.rope_theta, dim);
  for (int i = 0; i < dim / 2; ++i) {
    const float inv_freq =
        1.0f / std::pow(config.rope_theta, static_cast<float>(2 * i) / static_cast<float>(dim));
    const auto slowed = static_cast<float>(inv_freq / scaling.factor);
    switch (scaling.type) {
      case RopeScaling::Type::kNone: table.inv_freq.push_back(inv_freq); break;
      case RopeScaling::Type::kLinear: table.inv_freq.push_back(slowed); break;
      case RopeScaling::Type::kLlama3: table.inv_freq.push_back(Llama3(inv_freq, scaling)); break;
      case RopeScaling::Type::kYarn:
        table.inv_freq.push_back(static_cast<float>(slowed * ramp.At(i) + inv_freq * (1 - ramp.At(i))));
        break;
    }
  }
  if (scaling.type == RopeScaling::Type::kYarn) table.scale = YarnScale(scaling);
  return table;
}

}  // namespace sessa
