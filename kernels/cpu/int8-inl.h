// What the kernels of int8 weights share: products of pairs of 16-bit integers, and activations as such. For
// the loops that Highway builds for each target.
#if defined(SESSA_KERNELS_CPU_INT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_INT8_INL_H_
#undef SESSA_KERNELS_CPU_INT8_INL_H_
#else
#define SESSA_KERNELS_CPU_INT8_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cmath>

#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/quantize.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

inline constexpr hn::Rebind<hwy::bfloat16_t, hn::CappedTag<float, kLanes>> kB;

// Vectors of 32-bit lanes, each a pair of int16; and sum + a0 b0 + a1 b1 in each lane.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
inline constexpr hn::Repartition<int16_t, decltype(kI32)> kI16;
inline constexpr hn::Rebind<int8_t, decltype(kI16)> kI8;
HWY_INLINE VI LoadPairs(const int8_t* p) { return hn::BitCast(kI32, hn::PromoteTo(kI16, hn::LoadU(kI8, p))); }
HWY_INLINE VI AddPairs(VI sum, VI a, VI b) {
  return hn::ReorderWidenMulAccumulate(kI32, hn::BitCast(kI16, a), hn::BitCast(kI16, b), sum, sum);
}
#else
HWY_INLINE VI LoadPairs(const int8_t* p) {
  int32_t pairs[kLanes];
  for (size_t i = 0; i < kLanes; ++i)
    pairs[i] = (p[2 * i] & 0xffff) | static_cast<int32_t>(static_cast<uint32_t>(p[2 * i + 1]) << 16);
  return hn::LoadU(kI32, pairs);
}
HWY_INLINE VI AddPairs(VI sum, VI a, VI b) {
  const auto low = [](VI v) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
  return sum + low(a) * low(b) + hn::ShiftRight<16>(a) * hn::ShiftRight<16>(b);
}
#endif

// The largest magnitude of 64 floats; NaN counts as more than infinity.
HWY_INLINE float Largest(const float* x) {
  auto largest = hn::Zero(kI32);
  for (int i = 0; i < kScaleGroup; i += kLanes) {
    largest = hn::Max(
        largest, hn::BitCast(kI32, hn::Abs(hn::LoadU(kF, x + i))));  // bits of magnitudes order as they do
  }
  return std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(kI32, largest)));
}

// How values of at most `largest` become integers of at most `most`: scale is NaN where it is not finite, and
// factor 0 there and where it counts as 0.
struct Rounding {
  HWY_INLINE Rounding(float largest, float most) : scale(largest / most), factor(most / largest) {
    if (!std::isfinite(largest)) scale = std::nanf(""), factor = 0;
    if (largest < 1e-30f) scale = factor = 0;
  }
  float scale, factor;
};

// A group of activations, `count` of them or 64, as integers: the scale is its largest magnitude / 32767, NaN
// where one is not finite.
HWY_INLINE float QuantizeValues(const float* x, int count, int32_t* q) {
  alignas(64) float tail[kScaleGroup] = {};
  if (count < kScaleGroup) {
    std::copy_n(x, count, tail);
    x = tail;
  }
  const Rounding rounding(Largest(x), 32767);
  if (rounding.factor == 0) std::fill_n(q, kScaleGroup, 0);
  for (int i = 0; i < kScaleGroup && rounding.factor > 0; i += kLanes)
    hn::StoreU(hn::NearestInt(hn::LoadU(kF, x + i) * hn::Set(kF, rounding.factor)), kI32, q + i);
  return rounding.scale;
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
