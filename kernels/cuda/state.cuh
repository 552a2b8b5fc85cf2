// Where cached vectors lie in their pages (kernels.h, PagedVectors), and what int8 ones stand for: q * 2^e, q
// in -127 .. 127, e of a token and kStateGroup columns, by the rule of kernels/cpu/int8_state.h, to the bit.
// Every such value is a bf16 and a float32 as it is, so kernels compute with int8 state as with a bf16 state
// that holds these values.
#pragma once

#include <type_traits>

#include "kernels/cuda/device.cuh"

namespace sessa::cuda {

template <class T>
inline constexpr bool kIsInt8 = std::is_same_v<T, Int8>;
// Elements of a page: T says which rule of StateWidth and StateElements, which differ by int8 alone.
template <class T>
inline constexpr DType kRule = kIsInt8<T> ? DType::kI8 : DType::kBF16;

template <class T>
__device__ T* VectorInPage(const PagedVectors& v, int page, int head, int position) {
  const int slot = position & (v.page_size - 1);  // pages divide a tile of 64
  return static_cast<T*>(v.data) +
         (int64_t{page - v.first_page} * v.num_heads + head) * v.page_size * StateElements(kRule<T>, v.dim) +
         slot * StateWidth(kRule<T>, v.dim);
}
// A division and a wait for memory: who has other work begins with PageOf.
__device__ inline int PageOf(const PagedVectors& v, const int32_t* pages, int position) {
  return pages[position / v.page_size];
}
template <class T>
__device__ T* VectorAt(const PagedVectors& v, const int32_t* pages, int head, int position) {
  return VectorInPage<T>(v, PageOf(v, pages, position), head, position);
}

// From an int8 vector to its exponent of the group that `column` is in.
__device__ __forceinline__ int ToExponent(const PagedVectors& v, int position, int column) {
  const int slot = position & (v.page_size - 1);
  return (v.page_size - slot) * StateWidth(DType::kI8, v.dim) + slot + column / kStateGroup * v.page_size;
}
// 2^exponent, from -126 on; of kNotFinite an infinity, by which the group's zeros become NaN.
inline constexpr int kNotFinite = -128;
__device__ __forceinline__ float ScaleOf(int exponent) {
  return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
}
// The exponent of a group of which this is the largest magnitude, in bits: they order as magnitudes do, NaN
// beyond infinity.
__device__ __forceinline__ int ExponentOf(unsigned largest) {
  if (largest >= 0x7f800000u) return kNotFinite;
  // A magnitude from 2^n on takes n - 6, and from 127.5 / 128 of 2^(n + 1) on one more.
  return max(static_cast<int>((largest + 0x10000u) >> 23) - 133, -126);
}
__device__ __forceinline__ unsigned MagnitudeBits(float x) { return __float_as_uint(x) & 0x7fffffffu; }
__device__ __forceinline__ Int8 Quantize(float x, int exponent) {
  return static_cast<Int8>(exponent == kNotFinite ? 0 : static_cast<int>(rintf(x * ScaleOf(-exponent))));
}
__device__ __forceinline__ float Dequantize(Int8 q, int exponent) {
  return static_cast<float>(q) * ScaleOf(exponent);
}
// Over the warp; every lane gets the result.
__device__ __forceinline__ unsigned WarpLargest(unsigned bits) {
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2)
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, mask));
  return bits;
}

__device__ __forceinline__ float4 Times(float4 x, float scale) {
  return {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
}
// Four neighbours of a vector, as what they stand for. column: of the first, a multiple of 4.
template <class T>
__device__ __forceinline__ float4 LoadState4(const PagedVectors& v, const T* vector, int position,
                                             int column) {
  const float4 x = Load4(vector + column);
  if constexpr (kIsInt8<T>) return Times(x, ScaleOf(vector[ToExponent(v, position, column)]));
  return x;
}

}  // namespace sessa::cuda
