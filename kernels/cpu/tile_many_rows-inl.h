// The products of tile_attention.cc for more than a few rows. Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_TILE_MANY_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_TILE_MANY_ROWS_INL_H_
#undef SESSA_KERNELS_CPU_TILE_MANY_ROWS_INL_H_
#else
#define SESSA_KERNELS_CPU_TILE_MANY_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/tile_softmax-inl.h"
#include "kernels/cpu/tile_unit.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// Up to 64 rows on the tile unit: tiles 0 to 3 are sums, of 16 rows and 16 columns each, the last one or two
// are of the state, those between of the left side. A product waits 52 cycles for the one before it in the
// same sum and takes 16: so there are three or four sums, of one, two or four panels of columns. The weighted
// values are summed in [width / 16][rows][16], as rows a page apart would fall into the same cache sets.
template <class Unit, int kTerms>
class ManyRows {
 public:
  static constexpr bool kNative = !std::is_same_v<Unit, TileModel>;
  using Tile = TileOfState<Value>;

  ManyRows(const AttendArgs& args, const uint16_t* q, int width, SoftmaxState state, float* sums)
      : args_(args),
        q_(q),
        width_(width),
        row_tiles_(TilesOf(args.m)),
        rows_(row_tiles_ * kTileRows),
        sums_(sums),
        fresh_(args.begins) {
    for (int r = 0; r < args.m && !fresh_; ++r) {
      const float* acc = state.acc + r * state.acc_stride;
      for (int n = 0; n < width_; n += kPanel) std::copy_n(acc + n, kPanel, sums_ + n * rows_ + r * kPanel);
    }
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
        std::copy_n(sums_ + n * rows_ + r * kPanel, kPanel, acc + n);
    }
  }

 private:
  using P = Probabilities<kTerms>;

  template <int kRowTiles>
  static constexpr int kAtOnce = kRowTiles == 1   ? 4
                                 : kRowTiles == 2 ? 2
                                                  : 1;  // panels

  // Where 16 rows of a panel's columns lie, of the state and of sums.
  struct State {
    const void* rows;
    int64_t stride;  // bytes
  };
  struct Sums {
    float* data;
    int64_t panel, stride;  // between panels, between rows
    template <int kRowTiles, int kSum>
    float* tile() const {
      return data + kSum / kRowTiles * panel + kSum % kRowTiles * kTileRows * stride;
    }
  };
  // body.operator()<kSum>() for the sums of so many panels.
  template <int kRowTiles, class Body>
  HWY_INLINE void ForSums(int panels, const Body& body) {
    body.template operator()<0>();
    if constexpr (kRowTiles == 1) {
      if (panels > 1) body.template operator()<1>();
      if (panels > 2) body.template operator()<2>();
      if (panels > 3) body.template operator()<3>();
    } else {
      body.template operator()<1>();
      if constexpr (kRowTiles == 2) {
        if (panels > 1) body.template operator()<2>(), body.template operator()<3>();
      }
      if constexpr (kRowTiles > 2) body.template operator()<2>();
      if constexpr (kRowTiles > 3) body.template operator()<3>();
    }
  }
  template <int kRowTiles>
  HWY_INLINE void Zero(int panels) {
    ForSums<kRowTiles>(panels, [&]<int kSum>() { Unit::template Zero<kSum>(); });
  }
  template <int kRowTiles>
  HWY_INLINE void Load(int panels, const Sums& sums) {
    ForSums<kRowTiles>(panels, [&]<int kSum>() {
      Unit::template Load<kSum>(sums.template tile<kRowTiles, kSum>(), sums.stride * 4);
    });
  }
  template <int kRowTiles>
  HWY_INLINE void Store(int panels, const Sums& sums) {
    ForSums<kRowTiles>(panels, [&]<int kSum>() {
      Unit::template Store<kSum>(sums.template tile<kRowTiles, kSum>(), sums.stride * 4);
    });
  }
  // The sums += the left side's step, whose terms lie one after the other, times the state of each panel.
  template <int kRowTiles, class Meanwhile, class StateOf>
  HWY_INLINE void Step(int panels, const uint16_t* a, int64_t row_tile, Meanwhile* meanwhile,
                       const StateOf& state_of) {
    if constexpr (kRowTiles == 1) {
      Unit::template Load<4>(a, 64);
      if constexpr (kTerms > 1) Unit::template Load<5>(a + kTileValues, 64);
      if constexpr (kTerms > 2) Unit::template Load<6>(a + 2 * kTileValues, 64);
      ForSums<1>(panels, [&]<int kSum>() HWY_ATTR {
        meanwhile->Step();
        const State b = state_of(kSum);
        Unit::template Load<7>(b.rows, b.stride);
        Unit::template DotBf16<kSum, 4, 7>();
        if constexpr (kTerms > 1) Unit::template DotBf16<kSum, 5, 7>();
        if constexpr (kTerms > 2) Unit::template DotBf16<kSum, 6, 7>();
      });
      return;
    }
    for (int j = 0; j < panels; ++j) meanwhile->Step();
    const State b = state_of(0);
    Unit::template Load<7>(b.rows, b.stride);
    if constexpr (kRowTiles == 2) {
      if (panels > 1) {
        const State second = state_of(1);
        Unit::template Load<6>(second.rows, second.stride);
      }
    }
    SESSA_UNROLL
    for (int t = 0; t < kTerms; ++t, a += kTileValues) {
      Unit::template Load<4>(a, 64);
      Unit::template DotBf16<0, 4, 7>();
      Unit::template Load<5>(a + row_tile, 64);
      Unit::template DotBf16<1, 5, 7>();
      if constexpr (kRowTiles == 2) {
        if (panels > 1) Unit::template DotBf16<2, 4, 6>(), Unit::template DotBf16<3, 5, 6>();
      }
      if constexpr (kRowTiles > 2) Unit::template Load<6>(a + 2 * row_tile, 64);
      if constexpr (kRowTiles > 2) Unit::template DotBf16<2, 6, 7>();
      if constexpr (kRowTiles > 3) Unit::template Load<4>(a + 3 * row_tile, 64);
      if constexpr (kRowTiles > 3) Unit::template DotBf16<3, 4, 7>();
    }
  }

  // In blocks along the dimension, so that the rows' part stays in the first-level cache for all panels.
  template <int kRowTiles, class Meanwhile>
  HWY_NOINLINE void ScoresOf(const Tile& tile, Meanwhile* meanwhile, float* scores) {
    constexpr int kOnce = kAtOnce<kRowTiles>, kBlock = kOnce == kMaxPanels ? 1 << 20 : kTerms == 1 ? 8 : 3;
    const int steps = TileSteps(tile.dim), whole = PanelRows(tile.dim) / kTileDepth;
    const int64_t row_tile = static_cast<int64_t>(steps) * kTerms * kTileValues;
    for (int first = 0; first < steps; first += std::min(steps, kBlock)) {
      const int end = std::min(steps, first + kBlock);
      for (int p = 0; p < tile.num_panels(); p += kOnce) {
        const int panels = std::min(kOnce, tile.num_panels() - p);
        const Sums sums{scores + p * kPanel, kPanel, kScoreStride};
        first == 0 ? Zero<kRowTiles>(panels) : Load<kRowTiles>(panels, sums);
        const uint16_t* a = q_ + static_cast<int64_t>(first) * kTerms * kTileValues;
        for (int i = first; i < end; ++i, a += kTerms * kTileValues) {
          const auto keys = [&](int j) { return tile.key[p + j] + static_cast<int64_t>(i) * kTileValues; };
          if (i < whole) {
            Step<kRowTiles>(panels, a, row_tile, meanwhile, [&](int j) { return State{keys(j), 64}; });
            continue;
          }
          // What lies behind a panel is another one's, and may be NaN.
          alignas(64) Value last[kOnce][kTileValues] = {};
          const int count = (PanelRows(tile.dim) - whole * kTileDepth) * kPanel;
          for (int j = 0; j < panels; ++j) std::memcpy(last[j], keys(j), count * sizeof(Value));
          Step<kRowTiles>(panels, a, row_tile, meanwhile, [&](int j) { return State{last[j], 64}; });
        }
        Store<kRowTiles>(panels, sums);
      }
    }
  }

  template <int kRowTiles>
  HWY_NOINLINE void AddValuesOf(const Group<Tile>& group, const uint16_t* p, const float* weights,
                                LinesAhead* ahead) {
    constexpr int kOnce = kAtOnce<kRowTiles>;
    const bool rescale = !fresh_ && std::any_of(weights, weights + args_.m, [](float w) { return w != 1; });
    if (group.summed == 0 && !rescale) return;
    PairRows pairs[kJointTiles][kStepsOfTile];
    for (int i = 0; i < group.summed; ++i) {
      for (int step = 0; step * kTileDepth < group.tile[i].tokens; ++step)
        pairs[i][step] = PairRows(group.tile[i], step);
    }
    for (int n = 0; n < width_; n += kOnce * kPanel) {
      const int panels = std::min(kOnce, (width_ - n) / kPanel);
      const Sums sums{sums_ + n * rows_, kPanel * rows_, kPanel};
      for (int j = 0; j < panels && rescale; ++j) {
        for (int r = 0; r < args_.m; ++r) {
          float* row = sums.data + j * sums.panel + r * kPanel;
          const VF w = hn::Set(kF, weights[r]);
          for (int v = 0; v < kPanel; v += kLanes) hn::Store(hn::Load(kF, row + v) * w, kF, row + v);
        }
      }
      fresh_ ? Zero<kRowTiles>(panels) : Load<kRowTiles>(panels, sums);
      for (int i = 0; i < group.summed; ++i) {
        for (int step = 0; step * kTileDepth < group.tile[i].tokens; ++step) {
          const PairRows& rows = pairs[i][step];
          const uint16_t* left = p + P::Step(i, step);
          if (rows.whole) {
            Step<kRowTiles>(panels, left, P::kRowTile, ahead, [&](int j) {
              return State{rows.row[0] + 2 * (n + j * kPanel), rows.stride * 2};
            });
            continue;
          }
          alignas(64) uint32_t copy[kOnce][kPairs][kPanel] = {};
          for (int j = 0; j < panels; ++j) {
            for (int pair = 0; pair < rows.pairs; ++pair)
              std::memcpy(copy[j][pair], rows.row[pair] + 2 * (n + j * kPanel), 64);
            for (int c = 0; c < kPanel && rows.odd; ++c) copy[j][rows.pairs - 1][c] &= 0xffff;
          }
          Step<kRowTiles>(panels, left, P::kRowTile, ahead, [&](int j) { return State{copy[j], 64}; });
        }
      }
      Store<kRowTiles>(panels, sums);
    }
    fresh_ = false;
  }

  const AttendArgs& args_;
  const uint16_t* const q_;
  const int width_, row_tiles_, rows_;
  float* const sums_;
  bool fresh_;  // nothing was summed yet
};

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
