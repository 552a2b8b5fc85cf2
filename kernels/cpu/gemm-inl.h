// The one product of the CPU backend: a register tile C[rows][16 * panels] (+)= A B with one FMA chain over k for each
// element (see simd.h, "Exactness"). Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_GEMM_INL_H_
#undef SESSA_KERNELS_CPU_GEMM_INL_H_
#else
#define SESSA_KERNELS_CPU_GEMM_INL_H_
#endif

#include <bit>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
inline constexpr size_t kLanes = HWY_TARGET == HWY_SCALAR ? 1 : 4;
#else
inline constexpr size_t kLanes = HWY_MAX_BYTES / 4 < 16 ? HWY_MAX_BYTES / 4 : 16;
#endif
inline constexpr hn::CappedTag<float, kLanes> kF;
inline constexpr hn::Rebind<hwy::bfloat16_t, hn::CappedTag<float, kLanes>> kB;
inline constexpr int kVectors = kPanel / kLanes;  // of a panel row

HWY_INLINE auto LoadFloat(const float* p) { return hn::LoadU(kF, p); }
HWY_INLINE auto LoadFloat(const hwy::bfloat16_t* p) { return hn::PromoteTo(kF, hn::LoadU(kB, p)); }

HWY_INLINE uint16_t Bf16Bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

HWY_INLINE void RoundTo(const float* x, int n, DType dtype, float* y) {
  for (int i = 0; i < n; ++i) {
    y[i] = dtype == DType::kF32 ? x[i] : std::bit_cast<float>(static_cast<uint32_t>(Bf16Bits(x[i])) << 16);
  }
}

template <class T>
HWY_INLINE void Widen(const T* in, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + static_cast<int64_t>(kLanes) <= n; i += kLanes) hn::StoreU(LoadFloat(in + i), kF, out + i);
  for (; i < n; ++i) {
    if constexpr (sizeof(T) == 4) {
      out[i] = in[i];
    } else {
      out[i] = std::bit_cast<float>(static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(in)[i]) << 16);
    }
  }
}

// kRows x kPanels panels in registers. AVX-512: 12 x 2 = 24 accumulators, 2 of B, 1 broadcast. A is read at
// a[r * row_stride + k * depth_stride], panel p of B at b[p * panel_stride + k * ldb].
template <int kRows, int kPanels, class T>
HWY_INLINE void Micro(const float* a, int64_t row_stride, int64_t depth_stride, const T* b, int64_t panel_stride, int64_t ldb,
                      int k, float* c, int64_t ldc, bool accumulate) {
  constexpr int kV = kPanels * kVectors;
  using V = hn::Vec<decltype(kF)>;
  V acc[kRows][kV];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) acc[r][v] = accumulate ? hn::LoadU(kF, c + r * ldc + v * kLanes) : hn::Zero(kF);
  }
  for (int i = 0; i < k; ++i) {
    V bv[kV];
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      bv[v] = LoadFloat(b + (v / kVectors) * panel_stride + i * ldb + (v % kVectors) * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::Set(kF, a[r * row_stride + i * depth_stride]);
#pragma GCC unroll 16
      for (int v = 0; v < kV; ++v) acc[r][v] = hn::MulAdd(x, bv[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) hn::StoreU(acc[r][v], kF, c + r * ldc + v * kLanes);
  }
}

// Rows in steps of the largest register tile of this target that still fits.
template <int kPanels, class T>
HWY_NOINLINE void Rows(const float* a, int64_t row_stride, int64_t depth_stride, int m, const T* b, int64_t panel_stride,
                       int64_t ldb, int k, float* c, int64_t ldc, bool accumulate) {
  constexpr int kMax = kVectors * kPanels >= 8 ? 1 : kVectors * kPanels >= 4 ? 2 : kVectors == 1 ? 12 : 4;
  for (int r = 0; r < m;) {
    const float* x = a + r * row_stride;
    float* y = c + r * ldc;
    const int left = m - r;
    if (kMax >= 12 && left >= 12) {
      Micro<kMax >= 12 ? 12 : 1, kPanels>(x, row_stride, depth_stride, b, panel_stride, ldb, k, y, ldc, accumulate);
      r += 12;
    } else if (kMax >= 4 && left >= 4) {
      Micro<kMax >= 4 ? 4 : 1, kPanels>(x, row_stride, depth_stride, b, panel_stride, ldb, k, y, ldc, accumulate);
      r += 4;
    } else if (kMax >= 2 && left >= 2) {
      Micro<kMax >= 2 ? 2 : 1, kPanels>(x, row_stride, depth_stride, b, panel_stride, ldb, k, y, ldc, accumulate);
      r += 2;
    } else {
      Micro<1, kPanels>(x, row_stride, depth_stride, b, panel_stride, ldb, k, y, ldc, accumulate);
      r += 1;
    }
  }
}

// C[m][16 * panels] (+)= A[m][k] B[k][16 * panels], 1 <= panels <= 4.
template <class T>
HWY_INLINE void Product(const float* a, int64_t row_stride, int64_t depth_stride, int m, const T* b, int64_t panel_stride,
                        int64_t ldb, int panels, int k, float* c, int64_t ldc, bool accumulate) {
  while (panels > 0) {
    const int now = panels >= 4 ? 4 : panels >= 2 ? 2 : 1;
    if (now == 4) {
      Rows<4>(a, row_stride, depth_stride, m, b, panel_stride, ldb, k, c, ldc, accumulate);
    } else if (now == 2) {
      Rows<2>(a, row_stride, depth_stride, m, b, panel_stride, ldb, k, c, ldc, accumulate);
    } else {
      Rows<1>(a, row_stride, depth_stride, m, b, panel_stride, ldb, k, c, ldc, accumulate);
    }
    panels -= now;
    b += now * panel_stride;
    c += now * kPanel;
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
