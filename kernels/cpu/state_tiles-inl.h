// A softmax tile of paged state as the products of gemm-inl.h read it, and the weighted sum of its values.
// Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_STATE_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_STATE_TILES_INL_H_
#undef SESSA_KERNELS_CPU_STATE_TILES_INL_H_
#else
#define SESSA_KERNELS_CPU_STATE_TILES_INL_H_
#endif

#include <algorithm>

#include "kernels/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// A tile of cached tokens: where its groups of 16 lie.
template <class T>
struct TileOfState {
  TileOfState() = default;
  TileOfState(const PagedState& cache, int dim, int begin, int tokens)
      : ldv(cache.value_row_stride), dim(dim), tokens(tokens) {
    for (int i = 0; i * kPanel < tokens; ++i) {
      const int position = begin + i * kPanel, in_page = position % cache.page_size;
      const int64_t page = cache.pages[position / cache.page_size] - cache.page_offset;
      key[i] = At(cache.keys, page * cache.key_page_stride + static_cast<int64_t>(in_page) * PanelRows(dim));
      value[i] = At(cache.values, page * cache.value_page_stride + in_page * cache.value_row_stride);
    }
  }
  static const T* At(const void* data, int64_t element) {
    return static_cast<const T*>(data) + element / kUnit<T>;
  }
  int num_panels() const { return RoundUp(tokens, kPanel) / kPanel; }
  Block<T> Keys() const {
    Block<T> block{{kWidth<T> * kPanel, PanelRows(dim)}, num_panels(), dim};
    std::copy_n(key, num_panels(), block.b.row[0]);
    return block;
  }
  // Columns [column, column + 16 * panels) of the first `depth` values.
  Block<T> Values(int column, int panels, int depth) const {
    Block<T> block{{kWidth<T> * ldv, kPanel}, panels, depth};
    for (int i = 0; i * kPanel < depth; ++i) {
      for (int p = 0; p < panels; ++p) block.b.row[i][p] = value[i] + kWidth<T> * (column + p * kPanel);
    }
    return block;
  }
  const T *key[kMaxRuns] = {}, *value[kMaxRuns] = {};
  int64_t ldv = 0;
  int dim = 0, tokens = 0;
};

// C (+)= A B of at most kFewRows rows and four panels; those of `next`, of the same shape, come closer
// evenly: bursts would stop the FMA units.
template <class T>
HWY_NOINLINE void FewRowsAhead(const Lhs<T>& a, int rows, const Block<T>& block, const Block<T>& next,
                               float* c, int64_t ldc, bool accumulate) {
  if (kLanes < 16) {  // too few registers for more
    for (int r = 0; r < rows; ++r) {
      Micro<1, 4, true>(a.From(r), block.b, next.b, block.depth, c + r * ldc, ldc, accumulate);
    }
    return;
  }
  switch (rows) {
    case 1: return Micro<1, 4, true>(a, block.b, next.b, block.depth, c, ldc, accumulate);
    case 2: return Micro<2, 4, true>(a, block.b, next.b, block.depth, c, ldc, accumulate);
    case 3: return Micro<3, 4, true>(a, block.b, next.b, block.depth, c, ldc, accumulate);
    default: return Micro<4, 4, true>(a, block.b, next.b, block.depth, c, ldc, accumulate);
  }
}

// Few rows: memory sets the pace. kTokens values at a time are streamed over their whole width, and the next
// ones come closer. The sums lie in the first-level cache; probabilities stay in registers.
template <int kRows, int kTokens, class T>
HWY_NOINLINE void StreamValues(const LeftOf<T>* probabilities, const TileOfState<T>& tile, int depth,
                               int width, float* acc, int64_t acc_stride) {
  constexpr int kS = kStep<T>, kSteps = kTokens / kS, kParts = kTokens / kUnit<T>,
                kTileParts = kTile / kUnit<T>;
  const int64_t ld = kWidth<T> * tile.ldv;
  for (int t = 0; t < depth; t += kTokens) {
    const T* v = tile.value[t / kPanel] + t % kPanel / kS * ld;
    if (const int tokens = depth - t;
        tokens < kTokens) {  // one by one: what lies behind the last token must not enter a sum
      if constexpr (!kIsDot<T>) {
        for (int i = 0; i < tokens; ++i) {
          for (int r = 0; r < kRows; ++r) {
            const VF p = hn::Set(kF, probabilities[r * kTile + t + i]);
            for (int n = 0; n < width; n += kLanes) {
              float* x = acc + r * acc_stride + n;
              VF y[kS];
              LoadStep(v + i / kS * ld + kS * n, y);
              hn::StoreU(hn::MulAdd(p, y[i % kS], hn::LoadU(kF, x)), kF, x);
            }
          }
        }
      }
      return;
    }
    VF p[kRows][kParts];
    SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const LeftOf<T>* x = probabilities + r * kTileParts + t / kUnit<T>;
      SESSA_UNROLL
      for (int i = 0; i < kParts; ++i) {
        if constexpr (kIsDot<T>) {
          p[r][i] = SetPair(x[i]);
        } else {
          p[r][i] = hn::Set(kF, x[i]);
        }
      }
    }
    const T* x = v;
    for (int n = 0; n < width; n += kLanes, x += kWidth<T> * kLanes) {
      VF sum[kRows];
      SESSA_UNROLL
      for (int r = 0; r < kRows; ++r) sum[r] = hn::LoadU(kF, acc + r * acc_stride + n);
      SESSA_UNROLL
      for (int i = 0; i < kSteps; ++i) {
        __builtin_prefetch(x + (i + kSteps) * ld);
        if constexpr (kIsDot<T>) {
          const VF y = LoadPairs(x + i * ld);
          SESSA_UNROLL
          for (int r = 0; r < kRows; ++r) sum[r] = AddDot(sum[r], p[r][i], y);
        } else {
          VF y[kS];
          LoadStep(x + i * ld, y);
          SESSA_UNROLL
          for (int q = 0; q < kS; ++q) {
            SESSA_UNROLL
            for (int r = 0; r < kRows; ++r) sum[r] = hn::MulAdd(p[r][kS * i + q], y[q], sum[r]);
          }
        }
      }
      SESSA_UNROLL
      for (int r = 0; r < kRows; ++r) hn::StoreU(sum[r], kF, acc + r * acc_stride + n);
    }
  }
}

// acc [m][acc_stride] += the first `depth` probabilities times their values.
template <class T>
HWY_INLINE void AddValues(const LeftOf<T>* probabilities, int m, const TileOfState<T>& tile,
                          const TileOfState<T>& next, int depth, int width, LeftOf<T>* wide, float* acc,
                          int64_t acc_stride) {
  const Left<T> p{probabilities, m, kTile, kTile / kUnit<T>, false};
  if (m > kFewRows) {
    for (int n = 0; n < width; n += 2 * kPanel) {
      const int left = (width - n) / kPanel, panels = std::min(2, left);
      const Block<T> then = tile.Values(n + 2 * kPanel, std::clamp(left - 2, 0, 2), depth);
      WideProduct(p, tile.Values(n, panels, depth), then, wide, acc + n, acc_stride, /*accumulate=*/true);
    }
    return;
  }
  if (width <= kMaxPanels * kPanel) {  // all sums fit into registers
    const Block<T> values = tile.Values(0, width / kPanel, depth);
    if (depth == kTile && values.panels == kMaxPanels) {
      const Block<T> ahead = next.tokens == kTile ? next.Values(0, kMaxPanels, kTile) : values;
      return FewRowsAhead(p.Tile(0), m, values, ahead, acc, acc_stride, /*accumulate=*/true);
    }
    return ProductOfPanels(p.Tile(0), m, values.b, values.panels, depth, acc, acc_stride,
                           /*accumulate=*/true);
  }
  switch (m) {
    case 1: return StreamValues<1, 8>(probabilities, tile, depth, width, acc, acc_stride);
    case 2: return StreamValues<2, 8>(probabilities, tile, depth, width, acc, acc_stride);
    case 3: return StreamValues<3, 4>(probabilities, tile, depth, width, acc, acc_stride);
    default: return StreamValues<4, 4>(probabilities, tile, depth, width, acc, acc_stride);
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
