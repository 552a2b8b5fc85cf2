// Checkpoint values as floats, on the host.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/tensor.h"

namespace sessa {

inline float HalfToFloat(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * std::ldexp(static_cast<float>(mantissa), -24);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

// Element i of unaligned memory; dtype is f32, bf16 or f16.
inline float ToFloat(const void* data, int64_t i, DType dtype) {
  const char* p = static_cast<const char*>(data) + i * SizeOf(dtype);
  if (dtype == DType::kF32) {
    float f;
    std::memcpy(&f, p, sizeof f);
    return f;
  }
  uint16_t h;
  std::memcpy(&h, p, sizeof h);
  return dtype == DType::kBF16 ? std::bit_cast<float>(static_cast<uint32_t>(h) << 16) : HalfToFloat(h);
}

// `count` values from `first` on; a loop for each dtype, of vectors.
inline void ToFloats(const void* data, int64_t first, int64_t count, DType dtype, float* to) {
  const auto convert = [&](auto known) {
    for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(data, first + i, known);
  };
  switch (dtype) {
    case DType::kF32: return convert(std::integral_constant<DType, DType::kF32>());
    case DType::kBF16: return convert(std::integral_constant<DType, DType::kBF16>());
    default: return convert(std::integral_constant<DType, DType::kF16>());
  }
}

// To nearest even; NaN stays NaN.
inline uint16_t RoundToBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace sessa
