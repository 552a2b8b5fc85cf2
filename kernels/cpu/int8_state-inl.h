// Int8 state (int8_state.h) in vectors: the one function that rounds a group of columns, blocks as floats or
// as bf16 tiles, and the products of the vector unit. Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_INT8_STATE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_INT8_STATE_INL_H_
#undef SESSA_KERNELS_CPU_INT8_STATE_INL_H_
#else
#define SESSA_KERNELS_CPU_INT8_STATE_INL_H_
#endif

#include <algorithm>

#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/int8_state.h"
#include "kernels/cpu/state_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

inline constexpr int kGroupVectors = kStateGroup / static_cast<int>(kLanes);

// A group of columns becomes integers, in float lanes; its exponent.
HWY_INLINE int QuantizeGroup(VF (&x)[kGroupVectors]) {
  auto largest = hn::Zero(kI32);  // bits of magnitudes order as they do, NaN beyond infinity
  for (const VF& v : x) largest = hn::Max(largest, hn::BitCast(kI32, hn::Abs(v)));
  const int32_t bits = hn::GetLane(hn::MaxOfLanes(kI32, largest));
  if (bits >= 0x7f800000) {
    for (VF& v : x) v = hn::Zero(kF);
    return kNotFinite;
  }
  // A magnitude from 2^n on takes the exponent n - 6, and from 127.5 / 128 of 2^(n + 1) on one more.
  const int exponent = std::max(((bits + 0x10000) >> 23) - 133, -126);
  const VF factor = hn::Set(kF, ScaleOf(-exponent));
  for (VF& v : x) v = hn::Round(v * factor) + hn::Zero(kF);  // a page has no -0
  return exponent;
}

// A group of s as the cache will hold it.
HWY_INLINE void RoundAsInt8(VF (&x)[kGroupVectors]) {
  const VF scale = hn::Set(kF, ScaleOf(QuantizeGroup(x)));
  for (VF& v : x) v = v * scale;
}

HWY_INLINE VF LoadInt8(const int8_t* q) {
  return hn::ConvertTo(kF, hn::PromoteTo(kI32, hn::LoadU(hn::Rebind<int8_t, decltype(kI32)>(), q)));
}
// As ScaleOf, of kLanes tokens.
HWY_INLINE VF LoadScales(const int8_t* exponents) {
  const auto e = hn::PromoteTo(kI32, hn::LoadU(hn::Rebind<int8_t, decltype(kI32)>(), exponents));
  return hn::BitCast(kF, hn::ShiftLeft<23>(e + hn::Set(kI32, 127)));
}

// A tile of cached tokens: where its panels lie.
template <>
struct TileOfState<int8_t> {
  TileOfState() = default;
  TileOfState(const PagedState& cache, int dim, int begin, int tokens)
      : dim(dim), width(static_cast<int>(cache.value_row_stride)), tokens(tokens) {
    for (int i = 0; i * kPanel < tokens; ++i) {
      const int position = begin + i * kPanel, panel = position % cache.page_size / kPanel;
      const int64_t page = cache.pages[position / cache.page_size] - cache.page_offset;
      key[i] =
          static_cast<const int8_t*>(cache.keys) + page * cache.key_page_stride + panel * Int8PanelBytes(dim);
      value[i] = static_cast<const int8_t*>(cache.values) + page * cache.value_page_stride +
                 panel * Int8PanelBytes(width);
    }
  }
  int num_panels() const { return CeilDiv(tokens, kPanel); }
  const int8_t *key[kMaxRuns] = {}, *value[kMaxRuns] = {};
  int dim = 0, width = 0, tokens = 0;
};
using Int8Tile = TileOfState<int8_t>;

// A block of a tile in floats: it stays in the first-level cache between here and its product.
struct WideBlock {
  alignas(64) float x[kTile * kStateGroup];
};

// [column][kTile] of the first `columns` of a group; of the panels that there are.
HWY_INLINE void WidenKeys(const Int8Tile& tile, int group, int columns, WideBlock* to) {
  for (int p = 0; p < tile.num_panels(); ++p) {
    const int8_t* block = tile.key[p] + group * kInt8BlockBytes;
    const int8_t* exponents = block + kPanel * Int8Columns(tile.dim, group);
    VF scale[kVectors];
    for (int v = 0; v < kVectors; ++v) scale[v] = LoadScales(exponents + v * kLanes);
    float* x = to->x + p * kPanel;
    for (int c = 0; c < columns; ++c, block += kPanel, x += kTile) {
      __builtin_prefetch(block + kInt8BlockBytes);
      SESSA_UNROLL
      for (int v = 0; v < kVectors; ++v)
        hn::Store(LoadInt8(block + v * kLanes) * scale[v], kF, x + v * kLanes);
    }
  }
}

// [token][kStateGroup] of the first `tokens`.
HWY_INLINE void WidenValues(const Int8Tile& tile, int group, int tokens, WideBlock* to) {
  const int columns = Int8Columns(tile.width, group);
  float* x = to->x;
  for (int t = 0; t < tokens; ++t, x += kStateGroup) {
    const int8_t* block = tile.value[t / kPanel] + group * kInt8BlockBytes;
    const VF scale = hn::Set(kF, ScaleOf(block[kPanel * columns + t % kPanel]));
    const int8_t* row = block + t % kPanel * columns;
    __builtin_prefetch(row + kInt8BlockBytes);
    for (int c = 0; c < columns; c += kPanel) {
      SESSA_UNROLL
      for (int v = 0; v < kPanel; v += kLanes) hn::Store(LoadInt8(row + c + v) * scale, kF, x + c + v);
    }
  }
}

// Pairs of rows as bf16 tiles have them; what the rows hold is exact in bf16.
HWY_INLINE void StorePairs(VF even, VF odd, uint32_t* to) {
  const hn::RebindToUnsigned<decltype(kF)> u;
  const auto low = hn::ShiftRight<16>(hn::BitCast(u, even)),
             high = hn::And(hn::BitCast(u, odd), hn::Set(u, 0xffff0000));
  hn::StoreU(hn::Or(low, high), u, to);
}

// The keys of a panel as one of bf16 (simd.h), PanelRows(dim) / 2 pairs of rows.
HWY_INLINE void NarrowKeys(const int8_t* panel, int dim, uint32_t* to) {
  for (int g = 0; g < Int8Groups(dim); ++g) {
    const int8_t* block = panel + g * kInt8BlockBytes;
    const int columns = std::min(kStateGroup, PanelRows(dim) - g * kStateGroup);
    for (int v = 0; v < kPanel; v += kLanes) {
      const VF scale = LoadScales(block + kPanel * Int8Columns(dim, g) + v);
      uint32_t* pair = to + g * kStateGroup / 2 * kPanel + v;
      for (int c = 0; c < columns; c += 2, pair += kPanel) {
        StorePairs(LoadInt8(block + c * kPanel + v) * scale, LoadInt8(block + (c + 1) * kPanel + v) * scale,
                   pair);
      }
    }
  }
}

// The values of a panel as rows of bf16 pairs, `stride` pairs apart.
HWY_INLINE void NarrowValues(const int8_t* panel, int width, int64_t stride, uint32_t* to) {
  for (int g = 0; g < Int8Groups(width); ++g) {
    const int8_t* block = panel + g * kInt8BlockBytes;
    const int columns = Int8Columns(width, g);
    const int8_t* exponents = block + kPanel * columns;
    uint32_t* pair = to + g * kStateGroup;
    for (int t = 0; t < kPanel; t += 2, block += 2 * columns, pair += stride) {
      const VF even = hn::Set(kF, ScaleOf(exponents[t])), odd = hn::Set(kF, ScaleOf(exponents[t + 1]));
      for (int c = 0; c < columns; c += kLanes)
        StorePairs(LoadInt8(block + c) * even, LoadInt8(block + columns + c) * odd, pair + c);
    }
  }
}

// C (+)= A B of a block, `left` being columns [first, first + depth) of A.
HWY_INLINE void ProductOfBlock(const Left<float>& left, int first, const WideBlock& block, int64_t ldb,
                               int panels, int depth, float* c, int64_t ldc, bool accumulate) {
  Rhs<float> b{ldb, depth};
  for (int p = 0; p < panels; ++p) b.row[0][p] = block.x + p * kPanel;
  for (int t = 0; t < NumRowTiles(left.m); ++t) {
    const int r = FirstRowOfTile(t, left.m);
    Lhs<float> a = left.Tile(t);
    a.data += first * a.depth_stride;
    ProductOfPanels(a, FirstRowOfTile(t + 1, left.m) - r, b, panels, depth, c + r * ldc, ldc, accumulate);
  }
}

// scores [m][kTile] = q K^T of a tile: the chain over the dimension goes on from group to group.
HWY_INLINE void Scores(const Left<float>& q, const Int8Tile& tile, WideBlock* wide, float* scores) {
  for (int g = 0; g < Int8Groups(tile.dim); ++g) {
    const int first = g * kStateGroup, columns = std::min(kStateGroup, tile.dim - first);
    WidenKeys(tile, g, columns, wide);
    ProductOfBlock(q, first, *wide, kTile, tile.num_panels(), columns, scores, kTile, /*accumulate=*/g > 0);
  }
}

// acc [m][acc_stride] += the first `depth` probabilities times their values.
HWY_INLINE void AddValues(const float* probabilities, int m, const Int8Tile& tile, int depth, WideBlock* wide,
                          float* acc, int64_t acc_stride) {
  const Left<float> p{probabilities, m, kTile, kTile, false};
  for (int g = 0; g < Int8Groups(tile.width); ++g) {
    WidenValues(tile, g, depth, wide);
    ProductOfBlock(p, 0, *wide, kStateGroup, Int8Columns(tile.width, g) / kPanel, depth,
                   acc + g * kStateGroup, acc_stride, /*accumulate=*/true);
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
