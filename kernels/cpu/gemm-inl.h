// The one product of the CPU backend: a register tile C[rows][16 * panels] (+)= A B with one FMA chain over k
// for each element (see simd.h, "Exactness"). Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_GEMM_INL_H_
#undef SESSA_KERNELS_CPU_GEMM_INL_H_
#else
#define SESSA_KERNELS_CPU_GEMM_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/convert.h"
#include "kernels/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
inline constexpr size_t kLanes = HWY_TARGET == HWY_SCALAR ? 1 : 4;
#else
inline constexpr size_t kLanes = HWY_MAX_BYTES / 4 < 16 ? HWY_MAX_BYTES / 4 : 16;
#endif
inline constexpr hn::CappedTag<float, kLanes> kF;
inline constexpr hn::RebindToSigned<hn::CappedTag<float, kLanes>> kI32;
using VF = hn::Vec<decltype(kF)>;
using VI = hn::Vec<decltype(kI32)>;
inline constexpr int kVectors = kPanel / kLanes;  // of a panel row

// The elements T of B: float, bfloat16_t (the product is of floats), or Bf16Pair (as the bf16 dot product
// takes them: two rows of B at once, and A in pairs too). B's rows lie in steps: one row of f32, or a pair of
// rows [16][2] of bf16, which unpack with one operation each. A step of a panel is a cache line always.
template <class T>
inline constexpr bool kIsDot = std::is_same_v<T, Bf16Pair>;
template <class T>
inline constexpr int kStep = std::is_same_v<T, float> ? 1 : 2;  // rows of a step
template <class T>
inline constexpr int kUnit = kIsDot<T> ? 2 : 1;  // stored values in a T
template <class T>
inline constexpr int kWidth = kStep<T> / kUnit<T>;  // T's of a column in a step
template <class T>
using LeftOf = std::conditional_t<kIsDot<T>, Bf16Pair, float>;  // the elements of A, and of a widened B

HWY_INLINE void LoadStep(const float* p, VF* row) { row[0] = hn::LoadU(kF, p); }
HWY_INLINE void LoadStep(const hwy::bfloat16_t* p, VF* row) {
  const hn::RebindToUnsigned<decltype(kF)> u;
  const auto pairs = hn::LoadU(u, reinterpret_cast<const uint32_t*>(p));
  row[0] = hn::BitCast(kF, hn::ShiftLeft<16>(pairs));
  row[1] = hn::BitCast(kF, hn::And(pairs, hn::Set(u, 0xffff0000)));
}

// Whether this instruction set may have the dot product; HasBf16Dot says whether the machine has.
inline constexpr bool kHasDot = HWY_TARGET == HWY_AVX3;
// sum + a0 b0 + a1 b1 in each lane, for its pair of bf16.
HWY_INLINE VF AddDot(VF sum, VF a, VF b) {
#if HWY_TARGET == HWY_AVX3
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));  // not among Highway 1.0's
  return sum;
#else
  (void)a, (void)b;
  return sum;
#endif
}
HWY_INLINE VF LoadPairs(const Bf16Pair* p) { return hn::LoadU(kF, reinterpret_cast<const float*>(p)); }
HWY_INLINE VF SetPair(Bf16Pair pair) { return hn::Set(kF, std::bit_cast<float>(pair.bits)); }

// Bits whose upper halves are x as the cache rounds it: to nearest even; NaN stays NaN.
HWY_INLINE auto RoundedBits(VF x) {
  const hn::RebindToUnsigned<decltype(kF)> u;
  const auto bits = hn::BitCast(u, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
  const auto quiet = hn::Or(bits, hn::Set(u, 0x400000));  // its upper half alone must not become an infinity
  return hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(x)), quiet, bits + hn::Set(u, 0x7fff) + odd);
}

HWY_INLINE VF RoundAs(DType dtype, VF x) {
  if (dtype == DType::kF32) return x;
  const hn::RebindToUnsigned<decltype(kF)> u;
  return hn::BitCast(kF, hn::And(RoundedBits(x), hn::Set(u, 0xffff0000)));
}

// y[i] = x[2 i] and x[2 i + 1] rounded; n floats, a multiple of 32.
HWY_INLINE void RoundToPairs(const float* x, int n, Bf16Pair* y) {
#if HWY_TARGET == HWY_AVX3
  const hn::Repartition<uint16_t, decltype(kF)> halves;
  for (int i = 0; i < n; i += 2 * kLanes) {
    const auto low = hn::BitCast(halves, RoundedBits(hn::LoadU(kF, x + i)));
    const auto high = hn::BitCast(halves, RoundedBits(hn::LoadU(kF, x + i + kLanes)));
    hn::StoreU(hn::ConcatOdd(halves, high, low), halves, reinterpret_cast<uint16_t*>(y + i / 2));
  }
#else
  for (int i = 0; i < n / 2; ++i)
    y[i].bits = RoundToBf16(x[2 * i]) | static_cast<uint32_t>(RoundToBf16(x[2 * i + 1])) << 16;
#endif
}

// A as a product reads it: row_stride between its rows, depth_stride between its elements along k.
template <class T>
struct Lhs {
  const LeftOf<T>* data;
  int64_t row_stride, depth_stride;
  Lhs From(int row) const { return {data + row * row_stride, row_stride, depth_stride}; }
};

// B as a product reads it: its rows come in runs of equal length (cached values: 16 tokens, each run in some
// page), and row[j][p] is the first step of run j, panel p. Steps of a run are ldb elements apart.
inline constexpr int kMaxRuns = kTile / kPanel, kMaxPanels = 4;
template <class T>
struct Rhs {
  int64_t ldb;
  int run;
  const T* row[kMaxRuns][kMaxPanels] = {};
};

// kRows x kPanels panels in registers. AVX-512: at most 12 x 2 = 24 accumulators, 2 of B, 1 broadcast.
// With kAhead, each step asks for the same one of `ahead`, whose runs and steps lie as those of b.
template <int kRows, int kPanels, bool kAhead, class T>
HWY_INLINE void Micro(const Lhs<T>& a, const Rhs<T>& b, const Rhs<T>& ahead, int k, float* c, int64_t ldc,
                      bool accumulate) {
  constexpr int kV = kPanels * kVectors;
  VF acc[kRows][kV];
  SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v)
      acc[r][v] = accumulate ? hn::LoadU(kF, c + r * ldc + v * kLanes) : hn::Zero(kF);
  }
  const LeftOf<T>* x = a.data;
  const auto add = [&](const VF* y) HWY_ATTR {  // one row of B, or a pair
    SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if constexpr (kIsDot<T>) {
        const VF xr = SetPair(x[r * a.row_stride]);
        SESSA_UNROLL
        for (int v = 0; v < kV; ++v) acc[r][v] = AddDot(acc[r][v], xr, y[v]);
      } else {
        const VF xr = hn::Set(kF, x[r * a.row_stride]);
        SESSA_UNROLL
        for (int v = 0; v < kV; ++v) acc[r][v] = hn::MulAdd(xr, y[v], acc[r][v]);
      }
    }
    x += a.depth_stride;
  };
  constexpr int kS = kStep<T>, kStepLanes = kWidth<T> * static_cast<int>(kLanes);
  for (int j = 0, left = k; left > 0; ++j, left -= b.run) {
    const T* row[kPanels];
    [[maybe_unused]] const T* next[kPanels];
    SESSA_UNROLL
    for (int p = 0; p < kPanels; ++p) row[p] = b.row[j][p];
    if constexpr (kAhead) {
      SESSA_UNROLL
      for (int p = 0; p < kPanels; ++p) next[p] = ahead.row[j][p];
    }
    for (int i = std::min(left, b.run); i > 0; i -= kS) {
      VF y[kWidth<T>][kV];
      SESSA_UNROLL
      for (int v = 0; v < kV; ++v) {
        const T* step = row[v / kVectors] + v % kVectors * kStepLanes;
        if constexpr (kIsDot<T>) {
          y[0][v] = LoadPairs(step);
        } else {
          VF rows[kS];
          LoadStep(step, rows);
          SESSA_UNROLL
          for (int q = 0; q < kS; ++q) y[q][v] = rows[q];
        }
      }
      add(y[0]);
      if (kWidth<T> == 2 && i > 1) add(y[kWidth<T> - 1]);
      SESSA_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        row[p] += b.ldb;
        if constexpr (kAhead) {
          __builtin_prefetch(next[p], 0, 2);
          next[p] += b.ldb;
        }
      }
    }
  }
  SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) hn::StoreU(acc[r][v], kF, c + r * ldc + v * kLanes);
  }
}

// The largest register tile of this target: 32 registers hold 24 accumulators, 16 hold 12.
template <int kPanels>
inline constexpr int kMaxRows = kLanes == 16 ? (kPanels == 4 ? 4 : 12)
                                             : std::max(1, 12 / (kPanels * kVectors));

// Calls Micro with `rows` as a constant.
template <int kRows, int kPanels, bool kAhead, class T>
HWY_INLINE void MicroOf(int rows, const Lhs<T>& a, const Rhs<T>& b, const Rhs<T>& ahead, int k, float* c,
                        int64_t ldc, bool accumulate) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return Micro<kRows, kPanels, kAhead>(a, b, ahead, k, c, ldc, accumulate);
    MicroOf<kRows - 1, kPanels, kAhead>(rows, a, b, ahead, k, c, ldc, accumulate);
  }
}

// Rows in tiles of almost equal size: 64 rows are better six tiles of 11 or 10 than five of 12 and one of 4.
template <int kPanels, class T>
HWY_NOINLINE void Rows(const Lhs<T>& a, int m, const Rhs<T>& b, int k, float* c, int64_t ldc,
                       bool accumulate) {
  constexpr int kMax = kMaxRows<kPanels>;
  const int tiles = CeilDiv(m, kMax);
  for (int t = 0; t < tiles; ++t) {
    const int r = m * t / tiles, rows = m * (t + 1) / tiles - r;
    MicroOf<kMax, kPanels, false>(rows, a.From(r), b, b, k, c + r * ldc, ldc, accumulate);
  }
}

// How many panels to take at once: few rows need more of them, to have enough chains to hide the latency of
// an FMA.
HWY_INLINE int PanelsAtOnce(int m, int left) {
  if (m <= kFewRows && left >= 4) return 4;
  return left >= 2 && (kLanes == 16 || m <= kFewRows) ? 2 : 1;
}

// C[m][16 * panels] (+)= A[m][k] B[k][16 * panels], panels 1, 2 or 4.
template <class T>
HWY_INLINE void Product(const Lhs<T>& a, int m, const Rhs<T>& b, int panels, int k, float* c, int64_t ldc,
                        bool accumulate) {
  switch (panels) {
    case 4: return Rows<4>(a, m, b, k, c, ldc, accumulate);
    case 2: return Rows<2>(a, m, b, k, c, ldc, accumulate);
    default: return Rows<1>(a, m, b, k, c, ldc, accumulate);
  }
}

// The left side of a product of many rows: as PackRows and PackPairs leave it, or, of few rows or when its
// rows are short, as it lies.
template <class T>
struct Left {
  const LeftOf<T>* data;
  int m, k;
  int64_t row_stride;
  bool packed;
  Lhs<T> Tile(int tile) const {
    if (packed)
      return {data + static_cast<int64_t>(tile) * ((k + kUnit<T> - 1) / kUnit<T>)*kRowTile, 1, kRowTile};
    return {data + FirstRowOfTile(tile, m) * row_stride, row_stride, 1};
  }
};

// C (+)= A B for all of a block's panels.
template <class T>
HWY_INLINE void ProductOfPanels(const Lhs<T>& a, int rows, const Rhs<T>& b, int panels, int k, float* c,
                                int64_t ldc, bool accumulate) {
  for (int p = 0, now; p < panels; p += now) {
    now = PanelsAtOnce(rows, panels - p);
    Rhs<T> part = b;
    for (int j = 0; p > 0 && j < kMaxRuns; ++j) std::copy_n(b.row[j] + p, now, part.row[j]);
    Product(a, rows, part, now, k, c + p * kPanel, ldc, accumulate);
  }
}

// `depth` rows of B for a few panels.
template <class T>
struct Block {
  Rhs<T> b;
  int panels, depth;
};

// Calls body(first row of the step, the step) for the steps of panel p from row `begin` to `end`, multiples
// of kStep but for the last one's end: runs first, so that no index is divided.
template <class T, class Body>
HWY_INLINE void ForSteps(const Block<T>& block, int p, int begin, int end, const Body& body) {
  for (int j = begin / block.b.run, i = begin; i < end; ++j) {
    const int first = j * block.b.run, last = std::min(end, first + block.b.run);
    const T* step = block.b.row[j][p] + (i - first) / kStep<T> * block.b.ldb;
    for (; i < last; i += kStep<T>, step += block.b.ldb) body(i, step);
  }
}

// [depth rounded up to a step][16 * panels] floats, or, of pairs, half as many.
template <class T>
HWY_INLINE void WidenBlock(const Block<T>& block, LeftOf<T>* out) {
  const int ld = block.panels * kPanel;
  for (int p = 0; p < block.panels; ++p) {
    ForSteps(block, p, 0, block.depth, [&](int i, const T* step) HWY_ATTR {
      LeftOf<T>* to = out + i / kUnit<T> * ld + p * kPanel;
      for (int v = 0; v < kVectors; ++v, step += kWidth<T> * kLanes, to += kLanes) {
        if constexpr (kIsDot<T>) {
          hn::StoreU(LoadPairs(step), kF, reinterpret_cast<float*>(to));
        } else {
          VF rows[kStep<T>];
          LoadStep(step, rows);
          for (int q = 0; q < kStep<T>; ++q) hn::StoreU(rows[q], kF, to + q * ld);
        }
      }
    });
  }
}

// Asks for the `part`-th of `parts` shares of a block's cache lines: into the second-level cache, whose queue
// of misses is longer.
template <class T>
HWY_INLINE void PrefetchBlock(const Block<T>& block, int part, int parts) {
  const int begin = block.depth * part / parts / kStep<T> * kStep<T>, end = block.depth * (part + 1) / parts;
  for (int p = 0; p < block.panels; ++p) {
    ForSteps(block, p, begin, end, [](int, const T* step) { __builtin_prefetch(step, 0, 2); });
  }
}

// C [a.m][16 * panels] (+)= A B of a block, B widened once for all row tiles (pairs are only brought
// together: rows a page apart fall into the same cache sets). Meanwhile `next` comes closer: memory works
// while the FMA units do. wide: [block.depth + 1][16 * panels].
template <class T>
HWY_INLINE void WideProduct(const Left<T>& a, const Block<T>& block, const Block<T>& next, LeftOf<T>* wide,
                            float* c, int64_t ldc, bool accumulate) {
  WidenBlock(block, wide);
  Rhs<LeftOf<T>> b{block.panels * kPanel, block.depth};
  for (int p = 0; p < block.panels; ++p) b.row[0][p] = wide + p * kPanel;
  const int tiles = NumRowTiles(a.m);
  for (int t = 0; t < tiles; ++t) {
    PrefetchBlock(next, t, tiles);
    const int r = FirstRowOfTile(t, a.m);
    const Lhs<T> left = a.Tile(t);
    ProductOfPanels(Lhs<LeftOf<T>>{left.data, left.row_stride, left.depth_stride},
                    FirstRowOfTile(t + 1, a.m) - r, b, block.panels, block.depth, c + r * ldc, ldc,
                    accumulate);
  }
}

// y [rows][ldy] = z [rows][ldz] + bias (or null) for the first `columns`.
HWY_INLINE void StoreOutputs(const float* z, int64_t ldz, int rows, int columns, const float* bias, float* y,
                             int64_t ldy) {
  for (int i = 0; i < rows; ++i, z += ldz, y += ldy) {
    if (bias == nullptr) {
      std::copy(z, z + columns, y);
    } else {
      for (int j = 0; j < columns; ++j) y[j] = z[j] + bias[j];
    }
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
