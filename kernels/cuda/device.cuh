// Small device functions that several kernels share. Sums run in orders that depend on the data's size alone,
// and products are added by explicit fused multiply-adds (the build forbids others), so that a result has the
// same bits in every kernel.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/runtime.h"

namespace sessa::cuda {

inline constexpr int kThreads = 256;  // of most blocks
inline constexpr int kWarpLanes = 32;

struct Bf16 {
  uint16_t bits;
};
using Int8 = int8_t;

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(Bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ __forceinline__ float ToFloat(Int8 x) { return static_cast<float>(x); }

// To nearest even; NaN stays NaN.
__device__ __forceinline__ Bf16 RoundToBf16(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
__device__ __forceinline__ void Store(float x, float* y) { *y = x; }
__device__ __forceinline__ void Store(float x, Bf16* y) { *y = RoundToBf16(x); }

// Four neighbours from memory aligned to their size.
__device__ __forceinline__ float4 Load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ __forceinline__ float4 Load4(const Bf16* p) {
  const uint2 v = *reinterpret_cast<const uint2*>(p);
  return {__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
          __uint_as_float(v.y & 0xffff0000u)};
}
__device__ __forceinline__ float4 Load4(const Int8* p) {
  const unsigned v = *reinterpret_cast<const unsigned*>(p);
  const auto value = [v](int i) { return static_cast<float>(static_cast<Int8>(v >> 8 * i)); };
  return {value(0), value(1), value(2), value(3)};
}
// Eight, aligned to 16 bytes.
__device__ __forceinline__ void Load8(const float* p, float4 (&x)[2]) {
  x[0] = Load4(p), x[1] = Load4(p + 4);
}
__device__ __forceinline__ void Load8(const Bf16* p, float4 (&x)[2]) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  x[0] = {__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
          __uint_as_float(v.y & 0xffff0000u)};
  x[1] = {__uint_as_float(v.z << 16), __uint_as_float(v.z & 0xffff0000u), __uint_as_float(v.w << 16),
          __uint_as_float(v.w & 0xffff0000u)};
}

// Sixteen, aligned to 16 bytes.
__device__ __forceinline__ void Load16(const Int8* p, float4 (&x)[4]) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  const auto value = [](unsigned word, int i) {
    return static_cast<float>(static_cast<Int8>(word >> 8 * i));
  };
  const unsigned words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    x[i] = {value(words[i], 0), value(words[i], 1), value(words[i], 2), value(words[i], 3)};
}

__device__ __forceinline__ float Silu(float x) { return x / (1.0f + expf(-x)); }

// The end of a linear layer's output x, but for the gate, which takes two.
__device__ __forceinline__ void Finish(Epilogue epilogue, float x, float* y) {
  if (epilogue == Epilogue::kGelu) x = x * 0.5f * (1.0f + erff(x * 0.70710678f));
  *y = epilogue == Epilogue::kAdd ? *y + x : epilogue == Epilogue::kMultiply ? *y * x : x;
}

// The rows that a launch computes (RowLaunch).
__device__ __forceinline__ int LiveRows(const int32_t* live, int rows) {
  return live != nullptr ? *live : rows;
}

// Over the warp; every lane gets the result.
__device__ __forceinline__ float WarpSum(float x) {
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffu, x, mask);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, mask));
  return x;
}
// Over the lanes before this one; -inf on the first.
__device__ __forceinline__ float WarpMaxBefore(float x) {
  const int lane = threadIdx.x % kWarpLanes;
  for (int d = 1; d < kWarpLanes; d *= 2) {
    const float y = __shfl_up_sync(0xffffffffu, x, d);
    if (lane >= d) x = fmaxf(x, y);
  }
  x = __shfl_up_sync(0xffffffffu, x, 1);
  return lane == 0 ? -INFINITY : x;
}

// The sum over a block of kThreads of each thread's x, in a fixed order; every thread gets it.
__device__ inline float BlockSum(float x) {
  __shared__ float sums[kThreads / kWarpLanes];
  x = WarpSum(x);
  __syncthreads();  // the sums of the call before have been read
  if (threadIdx.x % kWarpLanes == 0) sums[threadIdx.x / kWarpLanes] = x;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < kThreads / kWarpLanes; ++i) sum += sums[i];
  return sum;
}

// A running softmax with maximum `max`, extended by a tile with maximum `tile_max`: what the old and the
// tile's sums are multiplied by. A tile that sees nothing has maximum -inf and changes nothing.
struct Rescale {
  float max, old, tile;
};
__device__ __forceinline__ Rescale Extend(float max, float tile_max) {
  if (tile_max == -INFINITY) return {max, 1.0f, 0.0f};
  const float top = fmaxf(max, tile_max);
  return {top, max == -INFINITY ? 0.0f : expf(max - top), expf(tile_max - top)};
}

}  // namespace sessa::cuda
