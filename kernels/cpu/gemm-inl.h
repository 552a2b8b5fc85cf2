// The one product of the CPU backend: a register tile C[rows][16 * panels] (+)= A B with one FMA chain over k for each
// element (see simd.h, "Exactness"). Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_GEMM_INL_H_
#undef SESSA_KERNELS_CPU_GEMM_INL_H_
#else
#define SESSA_KERNELS_CPU_GEMM_INL_H_
#endif

#include <algorithm>
#include <bit>

#include "hwy/highway.h"
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
inline constexpr int kVectors = kPanel / kLanes;  // of a panel row

// How many rows of B lie in one step of its memory: pairs of bf16 [16][2], which unpack in one operation each; single rows of f32.
// A step of a panel is a cache line either way.
template <class T>
inline constexpr int kStep = sizeof(T) == 2 ? 2 : 1;

HWY_INLINE void LoadStep(const float* p, VF* row) { row[0] = hn::LoadU(kF, p); }
HWY_INLINE void LoadStep(const hwy::bfloat16_t* p, VF* row) {
  const hn::RebindToUnsigned<decltype(kF)> u;
  const auto pairs = hn::LoadU(u, reinterpret_cast<const uint32_t*>(p));
  row[0] = hn::BitCast(kF, hn::ShiftLeft<16>(pairs));
  row[1] = hn::BitCast(kF, hn::And(pairs, hn::Set(u, 0xffff0000)));
}

HWY_INLINE uint16_t Bf16Bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A as a product reads it.
struct Lhs {
  const float* data;
  int64_t row_stride, depth_stride;
};

// B as a product reads it: its rows come in runs of equal length (cached values: 16 tokens, each run in some page), and
// row[j][p] is the first step of run j, panel p. Steps of a run are ldb elements apart.
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
HWY_INLINE void Micro(const Lhs& a, const Rhs<T>& b, const Rhs<T>& ahead, int k, float* c, int64_t ldc, bool accumulate) {
  constexpr int kV = kPanels * kVectors;
  VF acc[kRows][kV];
SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
SESSA_UNROLL
    for (int v = 0; v < kV; ++v) acc[r][v] = accumulate ? hn::LoadU(kF, c + r * ldc + v * kLanes) : hn::Zero(kF);
  }
  const float* x = a.data;
  const auto add = [&](const VF* y) HWY_ATTR {  // one row of B
SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VF xr = hn::Set(kF, x[r * a.row_stride]);
SESSA_UNROLL
      for (int v = 0; v < kV; ++v) acc[r][v] = hn::MulAdd(xr, y[v], acc[r][v]);
    }
    x += a.depth_stride;
  };
  constexpr int kS = kStep<T>, kStepLanes = kS * static_cast<int>(kLanes);
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
      VF y[kS][kV];
SESSA_UNROLL
      for (int v = 0; v < kV; ++v) {
        VF rows[kS];
        LoadStep(row[v / kVectors] + v % kVectors * kStepLanes, rows);
SESSA_UNROLL
        for (int q = 0; q < kS; ++q) y[q][v] = rows[q];
      }
      add(y[0]);
      if (kS == 2 && i > 1) add(y[kS - 1]);
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
inline constexpr int kMaxRows = kLanes == 16 ? (kPanels == 4 ? 4 : 12) : std::max(1, 12 / (kPanels * kVectors));

// Calls Micro with `rows` as a constant.
template <int kRows, int kPanels, class T>
HWY_INLINE void MicroOf(int rows, const Lhs& a, const Rhs<T>& b, int k, float* c, int64_t ldc, bool accumulate) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return Micro<kRows, kPanels, false>(a, b, b, k, c, ldc, accumulate);
    MicroOf<kRows - 1, kPanels>(rows, a, b, k, c, ldc, accumulate);
  }
}

// Rows in tiles of almost equal size: 64 rows are better six tiles of 11 or 10 than five of 12 and one of 4.
template <int kPanels, class T>
HWY_NOINLINE void Rows(const Lhs& a, int m, const Rhs<T>& b, int k, float* c, int64_t ldc, bool accumulate) {
  constexpr int kMax = kMaxRows<kPanels>;
  const int tiles = (m + kMax - 1) / kMax;
  for (int t = 0; t < tiles; ++t) {
    const int r = m * t / tiles, rows = m * (t + 1) / tiles - r;
    MicroOf<kMax, kPanels>(rows, {a.data + r * a.row_stride, a.row_stride, a.depth_stride}, b, k, c + r * ldc, ldc, accumulate);
  }
}

// How many panels to take at once: few rows need more of them, to have enough chains to hide the latency of an FMA.
HWY_INLINE int PanelsAtOnce(int m, int left) {
  if (m <= kFewRows && left >= 4) return 4;
  return left >= 2 && (kLanes == 16 || m <= kFewRows) ? 2 : 1;
}

// C[m][16 * panels] (+)= A[m][k] B[k][16 * panels], panels 1, 2 or 4.
template <class T>
HWY_INLINE void Product(const Lhs& a, int m, const Rhs<T>& b, int panels, int k, float* c, int64_t ldc, bool accumulate) {
  switch (panels) {
    case 4: return Rows<4>(a, m, b, k, c, ldc, accumulate);
    case 2: return Rows<2>(a, m, b, k, c, ldc, accumulate);
    default: return Rows<1>(a, m, b, k, c, ldc, accumulate);
  }
}

// The left side of a product of many rows: as PackRows leaves it, or, of few rows or when its rows are short, as it lies.
struct Left {
  const float* data;
  int m, k;
  int64_t row_stride;
  bool packed;
  Lhs Tile(int tile, int depth) const {  // from column `depth` on
    if (packed) return {data + (static_cast<int64_t>(tile) * k + depth) * kRowTile, 1, kRowTile};
    return {data + FirstRowOfTile(tile, m) * row_stride + depth, row_stride, 1};
  }
};

// C (+)= A B for all of a block's panels.
template <class T>
HWY_INLINE void ProductOfPanels(const Lhs& a, int rows, const Rhs<T>& b, int panels, int k, float* c, int64_t ldc, bool accumulate) {
  for (int p = 0, now; p < panels; p += now) {
    now = PanelsAtOnce(rows, panels - p);
    Rhs<T> part = b;
    for (int j = 0; p > 0 && j < kMaxRuns; ++j) std::copy_n(b.row[j] + p, now, part.row[j]);
    Product(a, rows, part, now, k, c + p * kPanel, ldc, accumulate);
  }
}

// Rows [begin, begin + depth) of A's k, that is of B, for a few panels.
template <class T>
struct Block {
  Rhs<T> b;
  int panels, begin, depth;
};

// Calls body(first row of the step, the step) for the steps of panel p from row `begin` to `end`, multiples of kStep but for the last
// one's end: runs first, so that no index is divided.
template <class T, class Body>
HWY_INLINE void ForSteps(const Block<T>& block, int p, int begin, int end, const Body& body) {
  for (int j = begin / block.b.run, i = begin; i < end; ++j) {
    const int first = j * block.b.run, last = std::min(end, first + block.b.run);
    const T* step = block.b.row[j][p] + (i - first) / kStep<T> * block.b.ldb;
    for (; i < last; i += kStep<T>, step += block.b.ldb) body(i, step);
  }
}

// [depth rounded up to a step][16 * panels] floats.
template <class T>
HWY_INLINE void WidenBlock(const Block<T>& block, float* out) {
  for (int p = 0; p < block.panels; ++p) {
    ForSteps(block, p, 0, block.depth, [&](int i, const T* step) HWY_ATTR {
      float* to = out + (i * block.panels + p) * kPanel;
      for (int v = 0; v < kVectors; ++v) {
        VF rows[kStep<T>];
        LoadStep(step + v * kStep<T> * static_cast<int>(kLanes), rows);
        for (int q = 0; q < kStep<T>; ++q) hn::StoreU(rows[q], kF, to + q * block.panels * kPanel + v * kLanes);
      }
    });
  }
}

// Asks for the `part`-th of `parts` shares of a block's cache lines: into the second-level cache, whose queue of misses is longer.
template <class T>
HWY_INLINE void PrefetchBlock(const Block<T>& block, int part, int parts) {
  const int begin = block.depth * part / parts / kStep<T> * kStep<T>, end = block.depth * (part + 1) / parts;
  for (int p = 0; p < block.panels; ++p) {
    ForSteps(block, p, begin, end, [](int, const T* step) { __builtin_prefetch(step, 0, 2); });
  }
}

// The rows of B from `begin` on (a multiple of kStep); of many runs, from a run's first row on.
template <class T>
HWY_INLINE Rhs<T> RowsFrom(const Rhs<T>& b, int begin) {
  Rhs<T> rest = b;
  const int run = begin / b.run;
  for (int p = 0; p < kMaxPanels; ++p) {
    for (int j = 0; j < kMaxRuns; ++j) rest.row[j][p] = j + run < kMaxRuns ? b.row[j + run][p] : nullptr;
    if (const int64_t offset = begin % b.run / kStep<T> * b.ldb; offset > 0) rest.row[0][p] = b.row[0][p] + offset;
  }
  return rest;
}

// C (+)= A B of a block in pieces of `depth` rows of B (at most a run, or dividing it), and with each piece a share of `next` comes
// closer: this call's is the `part`-th of `parts`. Memory works while the FMA units do.
template <class T, class U>
HWY_INLINE void ProductAhead(const Lhs& a, int rows, const Block<T>& block, int depth, const Block<U>& next, int part, int parts, float* c,
                             int64_t ldc, bool accumulate) {
  const int pieces = (block.depth + depth - 1) / depth;
  for (int i = 0; i < pieces; ++i) {
    PrefetchBlock(next, part * pieces + i, parts * pieces);
    ProductOfPanels({a.data + i * depth * a.depth_stride, a.row_stride, a.depth_stride}, rows, RowsFrom(block.b, i * depth),
                    block.panels, std::min(depth, block.depth - i * depth), c, ldc, accumulate || i > 0);
  }
}

// C [a.m][16 * panels] (+)= A B of a block, B widened to floats once for all row tiles. Meanwhile `next` comes closer:
// memory works while the FMA units do. wide: [block.depth + 1][16 * panels] floats.
template <class T>
HWY_INLINE void WideProduct(const Left& a, const Block<T>& block, const Block<T>& next, float* wide, float* c, int64_t ldc,
                            bool accumulate) {
  WidenBlock(block, wide);
  Rhs<float> b{block.panels * kPanel, block.depth};
  for (int p = 0; p < block.panels; ++p) b.row[0][p] = wide + p * kPanel;
  const int tiles = NumRowTiles(a.m);
  for (int t = 0; t < tiles; ++t) {
    PrefetchBlock(next, t, tiles);
    const int r = FirstRowOfTile(t, a.m);
    ProductOfPanels(a.Tile(t, block.begin), FirstRowOfTile(t + 1, a.m) - r, b, block.panels, block.depth, c + r * ldc, ldc,
                    accumulate);
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
