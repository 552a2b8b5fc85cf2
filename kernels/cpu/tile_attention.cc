#include "kernels/cpu/tile_attention.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/cpu/tile_unit.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/tile_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/state_tiles-inl.h"
#include "kernels/cpu/tile_few_rows-inl.h"
#include "kernels/cpu/tile_int8-inl.h"
#include "kernels/cpu/tile_softmax-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// Up to 64 rows on the tile unit: tiles 0 to 3 are sums of 16 rows each, 4 to 6 the left side, 7 is of the
// state. The weighted values are summed in [width / 16][kTile][16], as rows a page apart would fall into the
// same cache sets.
template <class Unit, int kTerms>
class ManyRows {
 public:
  static constexpr bool kNative = !std::is_same_v<Unit, TileModel>;

  using Tile = TileOfState<Value>;

  ManyRows(const AttendArgs& args, const uint16_t* q, int width, float* sums)
      : args_(args), q_(q), width_(width), row_tiles_(TilesOf(args.m)), sums_(sums) {
    Unit::Begin(std::min(args.m, kTileRows));
  }
  ~ManyRows() { Unit::End(); }
  int ScoreSteps(const Tile& tile) const { return tile.num_panels() * TileSteps(tile.dim); }
  int ValueSteps(const Group<Tile>& group) const { return width_ / kPanel * group.Steps(); }
  // The `place`-th tile of a group.
  Tile TileAt(const PagedState& cache, int begin, int tokens, int) const {
    return Tile(cache, args_.dim, begin, tokens);
  }
  // The keys of a tile are wanted, or the values of a group.
  void FetchKeys(const PagedState&, const Group<Tile>&, int) {}
  void FetchValues(const PagedState&, const Group<Tile>&) {}

  // scores [kTile][kScoreStride] = q K^T.
  template <class Meanwhile>
  void Scores(const Tile& tile, Meanwhile* meanwhile, float* scores) {
    switch (row_tiles_) {
      case 1: return ScoresOf<1>(tile, meanwhile, scores);
      case 2: return ScoresOf<2>(tile, meanwhile, scores);
      case 3: return ScoresOf<3>(tile, meanwhile, scores);
      default: return ScoresOf<4>(tile, meanwhile, scores);
    }
  }
  // What was summed before times the rows' weights, plus the group's values.
  void AddValues(const Group<Tile>& group, const uint16_t* p, const float* weights, LinesAhead* ahead) {
    switch (row_tiles_) {
      case 1: return AddValuesOf<1>(group, p, weights, ahead);
      case 2: return AddValuesOf<2>(group, p, weights, ahead);
      case 3: return AddValuesOf<3>(group, p, weights, ahead);
      default: return AddValuesOf<4>(group, p, weights, ahead);
    }
  }
  void Finish(SoftmaxState state) {
    for (int r = 0; r < args_.m; ++r) {
      float* acc = state.acc + r * state.acc_stride;
      if (fresh_) std::fill_n(acc, width_, 0.0f);
      for (int n = 0; n < width_ && !fresh_; n += kPanel)
        std::copy_n(sums_ + n * kTile + r * kPanel, kPanel, acc + n);
    }
  }

 private:
  using P = Probabilities<kTerms>;

  template <int kRowTiles>
  HWY_INLINE void Step(const uint16_t* a, int64_t row_tile, const void* b, int64_t stride) {
    Unit::template Load<7>(b, stride);
    SESSA_UNROLL
    for (int t = 0; t < kTerms; ++t, a += kTileValues) {
      Unit::template Load<4>(a, 64);
      Unit::template DotBf16<0, 4, 7>();
      if constexpr (kRowTiles > 1) Unit::template Load<5>(a + row_tile, 64);
      if constexpr (kRowTiles > 1) Unit::template DotBf16<1, 5, 7>();
      if constexpr (kRowTiles > 2) Unit::template Load<6>(a + 2 * row_tile, 64);
      if constexpr (kRowTiles > 2) Unit::template DotBf16<2, 6, 7>();
      if constexpr (kRowTiles > 3) Unit::template Load<4>(a + 3 * row_tile, 64);
      if constexpr (kRowTiles > 3) Unit::template DotBf16<3, 4, 7>();
    }
  }
  template <int kRowTiles>
  HWY_INLINE void Zero() {
    Unit::template Zero<0>();
    if constexpr (kRowTiles > 1) Unit::template Zero<1>();
    if constexpr (kRowTiles > 2) Unit::template Zero<2>();
    if constexpr (kRowTiles > 3) Unit::template Zero<3>();
  }
  // Rows of sums lie `stride` floats apart.
  template <int kRowTiles>
  HWY_INLINE void Load(const float* sums, int64_t stride) {
    Unit::template Load<0>(sums, stride * 4);
    if constexpr (kRowTiles > 1) Unit::template Load<1>(sums + kTileRows * stride, stride * 4);
    if constexpr (kRowTiles > 2) Unit::template Load<2>(sums + 2 * kTileRows * stride, stride * 4);
    if constexpr (kRowTiles > 3) Unit::template Load<3>(sums + 3 * kTileRows * stride, stride * 4);
  }
  template <int kRowTiles>
  HWY_INLINE void Store(float* sums, int64_t stride) {
    Unit::template Store<0>(sums, stride * 4);
    if constexpr (kRowTiles > 1) Unit::template Store<1>(sums + kTileRows * stride, stride * 4);
    if constexpr (kRowTiles > 2) Unit::template Store<2>(sums + 2 * kTileRows * stride, stride * 4);
    if constexpr (kRowTiles > 3) Unit::template Store<3>(sums + 3 * kTileRows * stride, stride * 4);
  }

  // In blocks along the dimension, so that the rows' part stays in the first-level cache for all panels.
  template <int kRowTiles, class Meanwhile>
  HWY_NOINLINE void ScoresOf(const Tile& tile, Meanwhile* meanwhile, float* scores) {
    constexpr int kBlock = kTerms == 1 ? 8 : 3;
    const int steps = TileSteps(tile.dim), whole = PanelRows(tile.dim) / kTileDepth;
    const int64_t row_tile = static_cast<int64_t>(steps) * kTerms * kTileValues;
    for (int first = 0; first < steps; first += kBlock) {
      const int end = std::min(steps, first + kBlock);
      for (int p = 0; p < tile.num_panels(); ++p) {
        float* sums = scores + p * kPanel;
        first == 0 ? Zero<kRowTiles>() : Load<kRowTiles>(sums, kScoreStride);
        const uint16_t* a = q_ + static_cast<int64_t>(first) * kTerms * kTileValues;
        const Value* b = tile.key[p] + static_cast<int64_t>(first) * kTileValues;
        for (int i = first; i < end; ++i, a += kTerms * kTileValues, b += kTileValues) {
          meanwhile->Step();
          if (i < whole) {
            Step<kRowTiles>(a, row_tile, b, 64);
            continue;
          }
          // What lies behind a panel is another one's, and may be NaN.
          alignas(64) Value last[kTileValues];
          const int count = (PanelRows(tile.dim) - whole * kTileDepth) * kPanel;
          std::memcpy(last, b, count * sizeof(Value));
          std::memset(last + count, 0, (kTileValues - count) * sizeof(Value));
          Step<kRowTiles>(a, row_tile, last, 64);
        }
        Store<kRowTiles>(sums, kScoreStride);
      }
    }
  }

  template <int kRowTiles>
  HWY_NOINLINE void AddValuesOf(const Group<Tile>& group, const uint16_t* p, const float* weights,
                                LinesAhead* ahead) {
    const bool rescale = !fresh_ && std::any_of(weights, weights + args_.m, [](float w) { return w != 1; });
    if (group.summed == 0 && !rescale) return;
    PairRows pairs[kJointTiles][kStepsOfTile];
    for (int i = 0; i < group.summed; ++i) {
      for (int step = 0; step * kTileDepth < group.tile[i].tokens; ++step)
        pairs[i][step] = PairRows(group.tile[i], step);
    }
    for (int n = 0; n < width_; n += kPanel) {
      float* sums = sums_ + n * kTile;
      for (int r = 0; r < args_.m && rescale; ++r) {
        const VF w = hn::Set(kF, weights[r]);
        for (int v = 0; v < kPanel; v += kLanes)
          hn::Store(hn::Load(kF, sums + r * kPanel + v) * w, kF, sums + r * kPanel + v);
      }
      fresh_ ? Zero<kRowTiles>() : Load<kRowTiles>(sums, kPanel);
      for (int i = 0; i < group.summed; ++i) {
        for (int step = 0; step * kTileDepth < group.tile[i].tokens; ++step) {
          ahead->Step();
          const PairRows& rows = pairs[i][step];
          const uint16_t* left = p + P::Step(i, step);
          if (rows.whole) {
            Step<kRowTiles>(left, P::kRowTile, rows.row[0] + 2 * n, rows.stride * 2);
            continue;
          }
          alignas(64) uint32_t copy[kPairs][kPanel] = {};
          for (int j = 0; j < rows.pairs; ++j) std::memcpy(copy[j], rows.row[j] + 2 * n, 64);
          for (int c = 0; c < kPanel && rows.odd; ++c) copy[rows.pairs - 1][c] &= 0xffff;
          Step<kRowTiles>(left, P::kRowTile, copy, 64);
        }
      }
      Store<kRowTiles>(sums, kPanel);
    }
    fresh_ = false;
  }

  const AttendArgs& args_;
  const uint16_t* const q_;
  const int width_, row_tiles_;
  float* const sums_;
  bool fresh_ = true;  // nothing was summed yet
};

template <int kTerms, class Products>
void AttendGroups(const AttendArgs& args, const PagedState& cache, SoftmaxState state, Products* products) {
  const int horizon = *std::max_element(args.visible, args.visible + args.m),
            width = RoundUp(args.value_dim, kPanel);
  const bool keep = args.probabilities != nullptr;
  using Tile = typename Products::Tile;
  using Tiles = Group<Tile>;
  using GroupSoftmax = Softmax<Products::kNative, kTerms, Tile>;
  alignas(64) float scores[2][kTile * kScoreStride];
  GroupSoftmax softmax(args, state);
  Meanwhile<GroupSoftmax> meanwhile;
  const auto group_from = [&](int t) {  // tiles are cut into groups by their place in the chain
    Tiles group;
    do {
      const int tokens = t < args.last ? std::clamp(horizon - t * kTile, 0, kTile) : 0;
      if (tokens == 0) break;
      group.Add(products->TileAt(cache, t * kTile, tokens, group.count), t * kTile);
      group.summed += !keep || t + args.step < args.last;
      t += args.step;
    } while (t / args.step % kJointTiles != 0);
    return group;
  };
  const auto after = [&](const Tiles& group) {
    return group.count == 0 ? Tiles() : group_from(group.begin[group.count - 1] / kTile + args.step);
  };
  int now = 0;
  const auto score = [&](const Tiles& group, bool beside_softmax) {
    int steps = 0;
    for (int i = 0; i < group.count; ++i) steps += products->ScoreSteps(group.tile[i]);
    meanwhile.Start(&softmax, beside_softmax ? args.m : 0, std::max(1, steps));
    for (int i = 0; i < group.count; ++i) {
      meanwhile.lines.Start(products->ScoreSteps(group.tile[i]));
      meanwhile.lines.Values(group.tile[i], width);
      products->FetchKeys(cache, group, i);
      products->Scores(group.tile[i], &meanwhile, scores[now] + i * kTile);
    }
  };
  // While the unit takes the scores of the next group, the vectors make probabilities of this one's.
  Tiles group, next = group_from(args.first), then = after(next);
  score(next, /*beside_softmax=*/false);
  while (next.count > 0) {
    group = next, next = then, then = after(next);
    softmax.Start(&group, scores[now]);
    now = 1 - now;
    score(next, /*beside_softmax=*/true);
    softmax.Finish();
    meanwhile.lines.Start(products->ValueSteps(group));
    for (int i = 0; i < then.count; ++i) meanwhile.lines.Keys(then.tile[i]);
    products->FetchValues(cache, group);
    products->AddValues(group, softmax.probabilities(), softmax.weights(), &meanwhile.lines);
  }
  products->Finish(state);
  softmax.ScaleMaxima();
  if (group.summed == group.count) return;
  const int tokens = std::min(group.tile[group.summed].tokens, args.value_limit - group.begin[group.summed]);
  if (tokens <= 0) return;
  if (cache.dtype == DType::kI8) {
    const Int8Tile own(cache, args.dim, group.begin[group.summed], group.tile[group.summed].tokens);
    WideBlock wide;
    HWY_NAMESPACE::AddValues(args.probabilities, args.m, own, tokens, &wide, state.acc, state.acc_stride);
  } else {
    const TileOfState<Value> own(cache, args.dim, group.begin[group.summed], group.tile[group.summed].tokens);
    alignas(64) float wide[kTile * 2 * kPanel];
    HWY_NAMESPACE::AddValues<Value>(args.probabilities, args.m, own, {}, tokens, width, wide, state.acc,
                                    state.acc_stride);
  }
}

template <class Unit, int kTerms>
void AttendManyRows(const uint16_t* q, const AttendArgs& args, const PagedState& cache, SoftmaxState state,
                    float* scratch) {
  const int width = RoundUp(args.value_dim, kPanel);
  if (cache.dtype == DType::kI8) {
    NarrowedRows<ManyRows<Unit, kTerms>> products(args, q, width, scratch);
    AttendGroups<kTerms>(args, cache, state, &products);
  } else {
    ManyRows<Unit, kTerms> products(args, q, width, scratch);
    AttendGroups<kTerms>(args, cache, state, &products);
  }
}

#if HWY_TARGET == HWY_AVX3
template <int kRows, int kTerms>
void AttendFewRows(const uint16_t* q, const AttendArgs& args, const PagedState& cache, SoftmaxState state,
                   float* scratch) {
  const int width = RoundUp(args.value_dim, kPanel);
  if (cache.dtype == DType::kI8) {
    Int8FewRows<kRows, kTerms> products(args, q, width, state, scratch);
    AttendGroups<kTerms>(args, cache, state, &products);
  } else {
    FewRows<kRows, kTerms> products(args, q, width, state, scratch);
    AttendGroups<kTerms>(args, cache, state, &products);
  }
}
#endif

void AttendOnTiles(const TileQueries& queries, const AttendArgs& args, const PagedState& cache,
                   SoftmaxState state, float* scratch) {
  const uint16_t* q = queries.rows;
#if HWY_TARGET == HWY_AVX3
  if (queries.unit == MatrixUnit::kAmx) {
    if (queries.terms == 3) {
      return args.m == 1 ? AttendFewRows<1, 3>(q, args, cache, state, scratch)
                         : AttendManyRows<Amx, 3>(q, args, cache, state, scratch);
    }
    switch (args.m) {
      case 1: return AttendFewRows<1, 1>(q, args, cache, state, scratch);
      case 2: return AttendFewRows<2, 1>(q, args, cache, state, scratch);
      case 3: return AttendFewRows<3, 1>(q, args, cache, state, scratch);
      case 4: return AttendFewRows<4, 1>(q, args, cache, state, scratch);
      default: return AttendManyRows<Amx, 1>(q, args, cache, state, scratch);
    }
  }
#endif
  std::vector<uint16_t> spread;  // a single row's tiles lie side by side (TileStride)
  if (args.m == 1) {
    spread.resize(TiledSize(1, args.dim, queries.terms));
    for (int i = 0; i < TileSteps(args.dim) * queries.terms; ++i)
      std::copy_n(q + i * kTileDepth, kTileDepth, &spread[i * kTileValues]);
    q = spread.data();
  }
  queries.terms == 1 ? AttendManyRows<TileModel, 1>(q, args, cache, state, scratch)
                     : AttendManyRows<TileModel, 3>(q, args, cache, state, scratch);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(AttendOnTiles);

void AttendOnTiles(const TileQueries& queries, const AttendArgs& args, const PagedState& cache,
                   SoftmaxState state, float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendOnTiles)(queries, args, cache, state, scratch);
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
