// Int8 weights in groups of kScaleGroup neighbours along k, each with a scale: on CUDA, and on CPUs without
// dot products of bytes (kernels/cpu/int8_linear.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/convert.h"
#include "kernels/round.h"

namespace sessa {

inline constexpr int kScaleGroup = 64;
constexpr int ScaleGroups(int k) { return CeilDiv(k, kScaleGroup); }

// x[i] is about q[i] * scale: the scale is the largest magnitude / 127 in bf16, whose bits are returned; q is
// rounded to nearest with that scale. Requires finite values.
inline uint16_t QuantizeGroup(const float* x, int n, int8_t* q) {
  float largest = 0;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
  const uint16_t bits = RoundToBf16(largest / 127);
  const float scale = ToFloat(&bits, 0, DType::kBF16);
  for (int i = 0; i < n; ++i)
    q[i] = static_cast<int8_t>(scale > 0 ? std::clamp(std::nearbyint(x[i] / scale), -127.0f, 127.0f) : 0.0f);
  return bits;
}

}  // namespace sessa
