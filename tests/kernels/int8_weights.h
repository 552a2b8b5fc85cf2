// What int8 weights stand for, in plain C++: an output's weights rounded and back.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "absl/types/span.h"
#include "kernels/quantize.h"

namespace sessa {

// Groups of 64 along k, the scale (largest / 127) rounded to bf16.
inline void RoundInGroups(absl::Span<float> weights) {
  for (; !weights.empty(); weights.remove_prefix(std::min<size_t>(weights.size(), kScaleGroup))) {
    const absl::Span<float> group = weights.subspan(0, kScaleGroup);
    float scale = 0;
    for (float x : group) scale = std::max(scale, std::abs(x));
    const uint16_t bits = RoundToBf16(scale / 127);
    scale = ToFloat(&bits, 0, DType::kBF16);
    for (float& x : group) x = scale > 0 ? std::clamp(std::nearbyint(x / scale), -127.0f, 127.0f) * scale : 0;
  }
}

// Element [i][j] of the Hadamard matrix of a block (kernels/cpu/int8_tiles.h), its own inverse but for a
// factor of 64.
inline int Hadamard(int i, int j) { return std::popcount(static_cast<unsigned>(i & j)) % 2 == 0 ? 1 : -1; }
inline void Rotate(std::array<double, 64>* block) {
  const std::array<double, 64> x = *block;
  for (int i = 0; i < 64; ++i) {
    (*block)[i] = 0;
    for (int j = 0; j < 64; ++j) (*block)[i] += Hadamard(i, j) * x[j];
  }
}

// One scale for all, after a rotation: on a tile unit.
inline void RoundRotated(absl::Span<float> weights) {
  std::vector<std::array<double, 64>> blocks(CeilDiv(weights.size(), 64));
  double largest = 0;
  for (size_t i = 0; i < weights.size(); ++i) blocks[i / 64][i % 64] = weights[i];
  for (auto& block : blocks) {
    Rotate(&block);
    for (double x : block) largest = std::max(largest, std::abs(x));
  }
  for (auto& block : blocks) {
    for (double& x : block) x = std::nearbyint(x / largest * 127) * largest / 127;
    Rotate(&block);
  }
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(blocks[i / 64][i % 64] / 64);
}

}  // namespace sessa
