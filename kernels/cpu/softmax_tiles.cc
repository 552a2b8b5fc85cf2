// Softmax attention over paged state on the vector unit, and the triangular solve of the feedback recurrence;
// the products are in gemm-inl.h and state_tiles-inl.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax_tiles.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/int8_state-inl.h"
#include "kernels/cpu/state_tiles-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// A row of a tile's scores becomes probabilities relative to the new maximum, and the row's state is
// rescaled. Tokens from `visible` on weigh 0, and with a window those before `from`. The sum runs in a fixed
// order.
template <bool kWindow>
HWY_INLINE void SoftmaxRow(float* s, int from, int visible, float scale, int width, float* max, float* sum,
                           float* acc) {
  const auto inside = [&](int v) {
    const auto first = [&](int n) {
      return hn::FirstN(kF, static_cast<size_t>(std::max(0, n - v * static_cast<int>(kLanes))));
    };
    if constexpr (kWindow) {
      return hn::AndNot(first(from), first(visible));
    } else {
      return first(visible);
    }
  };
  if (visible <= (kWindow ? from : 0)) {
    std::fill(s, s + kTile, 0.0f);
    return;
  }
  constexpr int kV = kTile / kLanes;
  const auto hidden = hn::Set(kF, -std::numeric_limits<float>::infinity()), factor = hn::Set(kF, scale);
  auto peak = hn::Set(kF, *max);
  for (int v = 0; v < kV; ++v) {
    const auto x = hn::IfThenElse(inside(v), hn::LoadU(kF, s + v * kLanes) * factor, hidden);
    hn::StoreU(x, kF, s + v * kLanes);
    peak = hn::Max(peak, x);
  }
  const float top = hn::GetLane(hn::MaxOfLanes(kF, peak));
  if (top > *max) {
    // exp(-inf) is a plain 0 by our own hand: the first tile of a chain has nothing to rescale.
    const float c = std::isinf(*max) ? 0.0f : std::exp(*max - top);
    *sum *= c;
    const auto rescale = hn::Set(kF, c);
    for (int i = 0; i < width; i += kLanes) hn::StoreU(hn::LoadU(kF, acc + i) * rescale, kF, acc + i);
    *max = top;
  }
  const auto shift = hn::Set(kF, top);
  auto total = hn::Zero(kF);
  for (int v = 0; v < kV; ++v) {
    const auto p = hn::IfThenElseZero(inside(v), ExpOfNegative(hn::LoadU(kF, s + v * kLanes) - shift));
    hn::StoreU(p, kF, s + v * kLanes);
    total = total + p;
  }
  *sum += hn::GetLane(hn::SumOfLanes(kF, total));
}

// scores [m][kTile] = q K^T of a tile; the keys of the next one come closer.
template <class T>
HWY_INLINE void Scores(const Left<T>& q, const TileOfState<T>& tile, const TileOfState<T>& next,
                       float* scores) {
  const Block<T> keys = tile.Keys(), next_keys = next.Keys();
  if (q.m <= kFewRows && keys.panels == kMaxPanels) {
    const bool full = next_keys.panels == kMaxPanels;
    return FewRowsAhead(q.Tile(0), q.m, keys, full ? next_keys : keys, scores, kTile, /*accumulate=*/false);
  }
  const int tiles = NumRowTiles(q.m);
  for (int t = 0; t < tiles; ++t) {
    const int r = FirstRowOfTile(t, q.m);
    PrefetchBlock(next_keys, t, tiles);
    ProductOfPanels(q.Tile(t), FirstRowOfTile(t + 1, q.m) - r, keys.b, keys.panels, tile.dim,
                    scores + r * kTile, kTile,
                    /*accumulate=*/false);
  }
}

// The tiles from `first` on before `last`; returns the one that would be next.
template <class T, class Queries>
int ExtendOver(const AttendArgs& args, const Queries& q, int first, int last, const PagedState& cache,
               SoftmaxState state) {
  const int width = RoundUp(args.value_dim, kPanel);
  const int horizon = *std::max_element(args.visible, args.visible + args.m);
  constexpr bool kIsInt8 = std::is_same_v<T, int8_t>;
  alignas(64) float scores[kTile * kTile];
  [[maybe_unused]] alignas(64) LeftOf<T> wide[kIsInt8 ? 1 : kTile * 2 * kPanel / kUnit<T>];
  [[maybe_unused]] std::conditional_t<kIsInt8, WideBlock, char> block;
  [[maybe_unused]] alignas(64) Bf16Pair rounded[kIsDot<T> ? kTile * kTile / 2 : 1];
  const auto tile_at = [&](int t) {  // an empty one behind the last
    const int tokens = t < last ? std::clamp(horizon - t * kTile, 0, kTile) : 0;
    return TileOfState<T>(cache, args.dim, t * kTile, tokens);
  };
  TileOfState<T> next = tile_at(first);
  int t = first;
  for (; next.tokens > 0; t += args.step) {
    const TileOfState<T> tile = next;
    next = tile_at(t + args.step);
    const int begin = t * kTile, tokens = tile.tokens;
    if constexpr (kIsInt8) {
      Scores(q, tile, &block, scores);
    } else {
      Scores(q, tile, next, scores);
    }
    for (int r = 0; r < args.m; ++r) {
      float* acc = state.acc + r * state.acc_stride;
      const int visible = std::min(kTile, args.visible[r] - begin);
      if (args.first_visible == nullptr || args.first_visible[r] <= begin) {
        SoftmaxRow<false>(scores + r * kTile, 0, visible, args.scale, width, state.max + r, state.sum + r,
                          acc);
      } else {
        SoftmaxRow<true>(scores + r * kTile, std::min(kTile, args.first_visible[r] - begin), visible,
                         args.scale, width, state.max + r, state.sum + r, acc);
      }
    }
    if constexpr (kIsDot<T>) {
      RoundToPairs(scores, args.m * kTile, rounded);
      AddValues(rounded, args.m, tile, next, kTile, width, wide, state.acc, state.acc_stride);
    } else {
      const bool own = args.probabilities != nullptr && t + args.step >= args.last;
      if (own) std::copy(scores, scores + args.m * kTile, args.probabilities);
      const int values = own ? std::min(tokens, args.value_limit - begin) : tokens;
      if (values <= 0) continue;
      if constexpr (kIsInt8) {
        AddValues(scores, args.m, tile, values, &block, state.acc, state.acc_stride);
      } else {
        AddValues(scores, args.m, tile, next, values, width, wide, state.acc, state.acc_stride);
      }
    }
  }
  return t;
}

void AttendTiles(const AttendArgs& args, const PagedState& cache, SoftmaxState state) {
  const bool packed = args.m > kFewRows;
  const Left<float> q{args.q, args.m, args.dim, args.ldq, packed};
  if (cache.dtype == DType::kF32) {
    ExtendOver<float>(args, q, args.first, args.last, cache, state);
    return;
  }
  if (cache.dtype == DType::kI8) {
    ExtendOver<int8_t>(args, q, args.first, args.last, cache, state);
    return;
  }
  int first = args.first;
  if constexpr (kHasDot) {
    if (args.q_pairs != nullptr) {
      const Left<Bf16Pair> pairs{args.q_pairs, args.m, args.dim, Pairs(args.dim), packed};
      first = ExtendOver<Bf16Pair>(args, pairs, first, std::min(args.last, args.dot_tiles), cache, state);
    }
  }
  const Left<hwy::bfloat16_t> floats{q.data, q.m, q.k, q.row_stride, q.packed};
  ExtendOver<hwy::bfloat16_t>(args, floats, first, args.last, cache, state);
}

// How the chains of a block's rows join: the weight of each chain, exp(max - top), and gamma over the joined
// denominator.
struct Join {
  float weight[kGroups][kTile];
  float share[kTile];
};

void JoinChains(const SolveArgs& args, Join* join) {
  float max[kGroups][kTile], sum[kGroups][kTile];  // padded: a vector never reads another block's rows
  const int rows = RoundUp(args.m, kLanes);
  for (int g = 0; g < kGroups; ++g) {
    std::fill(std::copy_n(args.max + g * args.group_stride, args.m, max[g]), max[g] + rows, 0.0f);
    std::fill(std::copy_n(args.sum + g * args.group_stride, args.m, sum[g]), sum[g] + rows, 0.0f);
  }
  const auto nothing = hn::Set(kF, -std::numeric_limits<float>::infinity());
  for (int r = 0; r < rows; r += kLanes) {
    auto top = nothing, denominator = hn::Zero(kF);
    for (int g = 0; g < kGroups; ++g) top = hn::Max(top, hn::LoadU(kF, max[g] + r));
    for (int i = 1; i <= kGroups; ++i) {  // the own chain comes last
      const int g = (args.group + i) % kGroups;
      const auto m = hn::LoadU(kF, max[g] + r);
      const auto empty = m == nothing;
      const auto w = hn::IfThenZeroElse(empty, ExpOfNegative(hn::IfThenZeroElse(empty, m - top)));
      hn::StoreU(w, kF, join->weight[g] + r);
      denominator = hn::MulAdd(w, hn::LoadU(kF, sum[g] + r), denominator);
    }
    hn::StoreU(denominator, kF, join->share + r);
  }
  for (int r = 0; r < args.m; ++r)
    join->share[r] = join->share[r] > 0 ? args.gamma[r] / join->share[r] : 0.0f;
}

// base [m][kSolveSlab] = the other chains' weighted values, joined in the order of the chains after the own
// one. Row by row: the chains are streams from a shared cache, and the next row's come closer meanwhile.
void JoinBase(const SolveArgs& args, const Join& join, int begin, int columns, float* base) {
  constexpr int kV = 64 / kLanes;  // of a step: a cache line at least
  const int width = RoundUp(columns, 64);
  for (int r = 0; r < args.m; ++r) {
    const float* chain[kGroups - 1];
    float weight[kGroups - 1];
    int n = 0;
    for (int i = 1; i < kGroups; ++i) {
      const int g = (args.group + i) % kGroups;
      if (join.weight[g][r] == 0) continue;
      weight[n] = join.weight[g][r];
      chain[n++] = args.acc + g * args.acc_group_stride + r * args.acc_stride + begin;
    }
    for (int c = 0; c < width; c += 64) {
      VF sum[kV];
      SESSA_UNROLL
      for (int v = 0; v < kV; ++v) sum[v] = hn::Zero(kF);
      for (int i = 0; i < n; ++i) {
        const VF w = hn::Set(kF, weight[i]);
        const float* x = chain[i] + c;
        for (int line = 0; line < 64; line += kPanel) __builtin_prefetch(x + args.acc_stride + line);
        SESSA_UNROLL
        for (int v = 0; v < kV; ++v) {
          const auto inside =
              hn::FirstN(kF, static_cast<size_t>(std::max(0, columns - c - v * static_cast<int>(kLanes))));
          sum[v] = hn::MulAdd(w, hn::MaskedLoad(inside, kF, x + v * kLanes), sum[v]);
        }
      }
      SESSA_UNROLL
      for (int v = 0; v < kV; ++v) hn::Store(sum[v], kF, base + r * kSolveSlab + c + v * kLanes);
    }
  }
}

// kRows rows from r0 on, kPanels panels of columns from c on: the finished rows enter as a product, then each
// new row enters those below it. All sums stay in registers; each takes the columns j in order, as decode
// does.
template <int kRows, int kPanels, bool kIsInt8>
HWY_INLINE void SolveTile(const SolveArgs& args, const Join& join, const float* base, int r0, int c,
                          int columns, float* finished) {
  constexpr int kV = kPanels * kVectors, kSlab = kPanels * kPanel;
  const float* p = args.probabilities + r0 * kTile + args.first_column;
  VF acc[kRows][kV];
  SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const float* x = args.acc + args.group * args.acc_group_stride + (r0 + r) * args.acc_stride + c;
    const bool empty = join.weight[args.group][r0 + r] == 0;  // then x was never written
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      const int left = std::max(0, columns - v * static_cast<int>(kLanes));
      acc[r][v] = empty     ? hn::Zero(kF)
                  : kIsInt8 ? hn::MaskedLoad(hn::FirstN(kF, static_cast<size_t>(left)), kF, x + v * kLanes)
                            : hn::LoadU(kF, x + v * kLanes);
    }
  }
  for (int j = 0; j < r0; ++j) {
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      const VF s = hn::Load(kF, finished + j * kSlab + v * kLanes);
      SESSA_UNROLL
      for (int r = 0; r < kRows; ++r) acc[r][v] = hn::MulAdd(hn::Set(kF, p[r * kTile + j]), s, acc[r][v]);
    }
  }
  SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const auto own = hn::Set(kF, join.weight[args.group][r0 + r]), share = hn::Set(kF, join.share[r0 + r]);
    const float* f = args.f + (r0 + r) * args.ldf + c;
    float* out = args.s + (r0 + r) * args.lds + c;
    VF rounded[kV];
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      const int left = columns - v * static_cast<int>(kLanes);
      const auto mask = hn::FirstN(kF, static_cast<size_t>(std::max(0, left)));
      const VF others = hn::Load(kF, base + (r0 + r) * kSolveSlab + v * kLanes);
      const VF s =
          hn::MulAdd(share, hn::MulAdd(own, acc[r][v], others), hn::MaskedLoad(mask, kF, f + v * kLanes));
      if (left >= static_cast<int>(kLanes)) {
        hn::StoreU(s, kF, out + v * kLanes);
      } else {
        for (int i = 0; i < left; ++i) out[v * kLanes + i] = hn::ExtractLane(s, i);
      }
      rounded[v] = kIsInt8 ? s : RoundAs(args.dtype, s);
    }
    if constexpr (kIsInt8) RoundAsInt8(rounded);
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      hn::Store(rounded[v], kF, finished + (r0 + r) * kSlab + v * kLanes);
      SESSA_UNROLL
      for (int i = r + 1; i < kRows; ++i)
        acc[i][v] = hn::MulAdd(hn::Set(kF, p[i * kTile + r0 + r]), rounded[v], acc[i][v]);
    }
  }
}

template <int kPanels, bool kIsInt8 = false>
HWY_NOINLINE void SolvePanels(const SolveArgs& args, const Join& join, const float* base, int c,
                              int columns) {
  constexpr int kRows = kLanes == 16 ? 16 / kPanels : std::max(1, 8 / (kPanels * kVectors));
  alignas(64) float finished[kTile * kPanels * kPanel];  // rows of s as the cache will hold them
  int r = 0;
  for (; r + kRows <= args.m; r += kRows)
    SolveTile<kRows, kPanels, kIsInt8>(args, join, base, r, c, columns, finished);
  for (; r < args.m; ++r) SolveTile<1, kPanels, kIsInt8>(args, join, base, r, c, columns, finished);
}

void FeedbackSolve(const SolveArgs& args, int begin, int end) {
  Join join;
  JoinChains(args, &join);
  alignas(64) float base[kTile * kSolveSlab];
  for (int slab = begin; slab < end; slab += kSolveSlab) {
    const int last = std::min(end, slab + kSolveSlab);
    JoinBase(args, join, slab, last - slab, base);
    for (int c = slab; c < last;) {
      if (args.dtype == DType::kI8) {  // a group of columns, which have one scale
        SolvePanels<kStateGroup / kPanel, true>(args, join, base + c - slab, c, last - c);
        c += kStateGroup;
      } else if (kLanes == 16 && last - c > 3 * kPanel) {
        SolvePanels<4>(args, join, base + c - slab, c, last - c);
        c += 4 * kPanel;
      } else if (last - c > kPanel) {
        SolvePanels<2>(args, join, base + c - slab, c, last - c);
        c += 2 * kPanel;
      } else {
        SolvePanels<1>(args, join, base + c - slab, c, last - c);
        c += kPanel;
      }
    }
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(AttendTiles);
HWY_EXPORT(FeedbackSolve);

void AttendTiles(const AttendArgs& args, const PagedState& cache, SoftmaxState state) {
  HWY_DYNAMIC_DISPATCH(AttendTiles)(args, cache, state);
}
void FeedbackSolve(const SolveArgs& args, int begin, int end) {
  HWY_DYNAMIC_DISPATCH(FeedbackSolve)(args, begin, end);
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
