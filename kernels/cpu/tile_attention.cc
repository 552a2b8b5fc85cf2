#include "kernels/cpu/tile_attention.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/cpu/tile_unit.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/tile_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/state_tiles-inl.h"
#include "kernels/cpu/tile_many_rows-inl.h"
#include "kernels/cpu/tile_softmax-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3
// 32 values of kRows rows of the left side as floats, [row][term][even, odd][pair].
template <int kRows, int kTerms>
struct LeftStep {
  LeftStep() = default;
  HWY_INLINE LeftStep(const uint16_t* a, int term_stride) {
    SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SESSA_UNROLL
      for (int t = 0; t < kTerms; ++t) {
        VF row[2];
        LoadStep(reinterpret_cast<const Value*>(a + r * kTileDepth + t * term_stride), row);
        hn::Store(row[0], kF, x[r][t][0]);
        hn::Store(row[1], kF, x[r][t][1]);
      }
    }
  }
  alignas(64) float x[kRows][kTerms][2][kPairs];
};

// sum[kVectors][kRows] += what the tile unit gives for `pairs` pairs of a step: row(j, v) is the j-th pair of
// vector v.
template <int kRows, int kTerms, int kV, class Row>
HWY_INLINE void AddStep(const LeftStep<kRows, kTerms>& left, int pairs, const Row& row,
                        VF (&sum)[kV][kRows]) {
  VF even[kV][kRows][kTerms], odd[kV][kRows][kTerms];
  SESSA_UNROLL
  for (int v = 0; v < kV; ++v) {
    SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SESSA_UNROLL
      for (int t = 0; t < kTerms; ++t) even[v][r][t] = odd[v][r][t] = hn::Zero(kF);
    }
  }
  for (int j = 0; j < pairs; ++j) {
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      VF y[2];
      LoadStep(row(j, v), y);
      SESSA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        SESSA_UNROLL
        for (int t = 0; t < kTerms; ++t) {
          even[v][r][t] = hn::MulAdd(hn::Set(kF, left.x[r][t][0][j]), y[0], even[v][r][t]);
          odd[v][r][t] = hn::MulAdd(hn::Set(kF, left.x[r][t][1][j]), y[1], odd[v][r][t]);
        }
      }
    }
  }
  SESSA_UNROLL
  for (int t = 0; t < kTerms; ++t) {
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      SESSA_UNROLL
      for (int r = 0; r < kRows; ++r) sum[v][r] = sum[v][r] + (even[v][r][t] + odd[v][r][t]);
    }
  }
}

// Few rows on the vector unit, with the tile unit's bits: memory sets the pace, and the unit takes
// microseconds to wake.
template <int kRows, int kTerms>
class FewRows {
 public:
  static constexpr bool kNative = true;

  FewRows(const AttendArgs& args, const uint16_t* q, int width, SoftmaxState state, float* scratch)
      : width_(width),
        state_(state),
        last_(scratch),
        q_(reinterpret_cast<LeftStep<kRows, kTerms>*>(scratch + width)) {
    for (int r = 0; r < kRows && args.begins; ++r) std::fill_n(state.acc + r * state.acc_stride, width, 0.0f);
    const int stride = TileStride(args.m);
    for (int i = 0; i < TileSteps(args.dim); ++i, q += kTerms * stride) q_[i] = {q, stride};
  }
  int ScoreSteps(const Tile& tile) const { return CeilDiv(tile.num_panels(), kV) * TileSteps(tile.dim); }
  int ValueSteps(const Group& group) const { return CeilDiv(width_, kV * kPanel) * group.Steps(); }

  template <class Meanwhile>
  HWY_NOINLINE void Scores(const Tile& tile, Meanwhile* meanwhile, float* scores) {
    LinesAhead* ahead = &meanwhile->lines;  // the softmax does not flush denormals: it comes after
    const FlushesDenormals flushes;
    int p = 0;
    for (; p + kV <= tile.num_panels(); p += kV) ScoresOf<kV>(tile, p, ahead, scores);
    for (; p < tile.num_panels(); ++p) ScoresOf<1>(tile, p, ahead, scores);
  }
  HWY_NOINLINE void AddValues(const Group& group, const uint16_t* p, const float* weights,
                              LinesAhead* ahead) {
    for (int r = 0; r < kRows; ++r) {
      const VF w = hn::Set(kF, weights[r]);
      float* acc = state_.acc + r * state_.acc_stride;
      for (int n = 0; n < width_ && weights[r] != 1; n += kLanes)
        hn::StoreU(hn::LoadU(kF, acc + n) * w, kF, acc + n);
    }
    const FlushesDenormals flushes;
    for (int i = 0; i < group.summed; ++i) {
      for (int step = 0; step * kTileDepth < group.tile[i].tokens; ++step) {
        const LeftStep<kRows, kTerms> left(p + Probabilities<kTerms>::Step(i, step), kTileValues);
        PairRows rows = group.rows[i][step];
        if (rows.odd) {  // what lies behind the last token may be NaN
          auto* last = reinterpret_cast<uint32_t*>(last_);
          std::memcpy(last, rows.row[rows.pairs - 1], width_ * sizeof(uint32_t));
          for (int n = 0; n < width_; ++n) last[n] &= 0xffff;
          rows.row[rows.pairs - 1] = reinterpret_cast<const Value*>(last);
        }
        int n = 0;
        for (; n + kV * kPanel <= width_; n += kV * kPanel) AddValuesOf<kV>(left, rows, n, ahead);
        for (; n < width_; n += kPanel) AddValuesOf<1>(left, rows, n, ahead);
      }
    }
  }
  void Finish(SoftmaxState) {}

 private:
  static constexpr int kV = kRows * kTerms == 1 ? 4 : 2;  // vectors at once: what there are registers for
  static constexpr int kAhead = 2 * kTileValues;

  template <int kPanels>
  HWY_INLINE void ScoresOf(const Tile& tile, int panel, LinesAhead* ahead, float* scores) {
    const int steps = TileSteps(tile.dim), pairs = PanelRows(tile.dim) / 2;
    VF sum[kPanels][kRows];
    for (auto& row : sum) std::fill_n(row, kRows, hn::Zero(kF));
    for (int i = 0; i < steps; ++i) {
      ahead->Step();
      AddStep(
          q_[i], std::min(kPairs, pairs - i * kPairs),
          [&](int j, int v) {
            const Value* pair = tile.key[panel + v] + (i * kPairs + j) * 2 * kPanel;
            __builtin_prefetch(pair + kAhead);  // nobody asked for a chain's first keys
            return pair;
          },
          sum);
    }
    for (int v = 0; v < kPanels; ++v) {
      for (int r = 0; r < kRows; ++r)
        hn::Store(sum[v][r], kF, scores + r * kScoreStride + (panel + v) * kPanel);
    }
  }

  template <int kVectors>
  HWY_INLINE void AddValuesOf(const LeftStep<kRows, kTerms>& left, const PairRows& rows, int n,
                              LinesAhead* ahead) {
    VF sum[kVectors][kRows];
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < kRows; ++r)
        sum[v][r] = hn::LoadU(kF, state_.acc + r * state_.acc_stride + n + v * kLanes);
    }
    ahead->Step();
    AddStep(
        left, rows.pairs, [&](int j, int v) { return rows.row[j] + 2 * (n + v * kPanel); }, sum);
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < kRows; ++r)
        hn::StoreU(sum[v][r], kF, state_.acc + r * state_.acc_stride + n + v * kLanes);
    }
  }

  const int width_;
  const SoftmaxState state_;
  float* const last_;                 // [width], a row of pairs
  LeftStep<kRows, kTerms>* const q_;  // [TileSteps(dim)]
};
#endif

template <int kTerms, class Products>
void AttendGroups(const AttendArgs& args, const PagedState& cache, SoftmaxState state, Products* products) {
  const int horizon = *std::max_element(args.visible, args.visible + args.m),
            width = RoundUp(args.value_dim, kPanel);
  const bool keep = args.probabilities != nullptr;
  using GroupSoftmax = Softmax<Products::kNative, kTerms>;
  alignas(64) float scores[2][kTile * kScoreStride];
  GroupSoftmax softmax(args, state);
  Meanwhile<GroupSoftmax> meanwhile;
  Group groups[3];                                    // in turn
  const auto group_from = [&](Group* group, int t) {  // tiles are cut by their place in the chain
    group->count = group->summed = 0;
    do {
      const int tokens = t < args.last ? std::clamp(horizon - t * kTile, 0, kTile) : 0;
      if (tokens == 0) break;
      group->Add(Tile(cache, args.dim, t * kTile, tokens), t * kTile);
      group->summed += !keep || t + args.step < args.last;
      t += args.step;
    } while (t / args.step % kJointTiles != 0);
    return group;
  };
  const auto after = [&](Group* group, const Group& before) {
    if (before.count > 0) return group_from(group, before.begin[before.count - 1] / kTile + args.step);
    group->count = 0;
    return group;
  };
  int now = 0;
  const auto score = [&](const Group& group, bool beside_softmax) {
    int steps = 0;
    for (int i = 0; i < group.count; ++i) steps += products->ScoreSteps(group.tile[i]);
    meanwhile.Start(&softmax, beside_softmax ? softmax.Steps() : 0, std::max(1, steps));
    for (int i = 0; i < group.count; ++i) {
      meanwhile.lines.Start(products->ScoreSteps(group.tile[i]));
      meanwhile.lines.Values(group.tile[i], width);
      products->Scores(group.tile[i], &meanwhile, scores[now] + i * kTile);
    }
  };
  // While the unit takes the scores of the next group, the vectors make probabilities of this one's.
  Group *group = &groups[0], *next = group_from(&groups[1], args.first), *then = after(&groups[2], *next);
  score(*next, /*beside_softmax=*/false);
  while (next->count > 0) {
    Group* const spare = group;
    group = next, next = then, then = after(spare, *next);
    softmax.Start(group, scores[now]);
    now = 1 - now;
    score(*next, /*beside_softmax=*/true);
    softmax.Finish();
    meanwhile.lines.Start(products->ValueSteps(*group));
    for (int i = 0; i < then->count; ++i) meanwhile.lines.Keys(then->tile[i]);
    products->AddValues(*group, softmax.probabilities(), softmax.weights(), &meanwhile.lines);
  }
  products->Finish(state);
  if (args.ends) softmax.ScaleMaxima();
  if (group->summed == group->count) return;
  const int tokens =
      std::min(group->tile[group->summed].tokens, args.value_limit - group->begin[group->summed]);
  if (tokens > 0) {
    alignas(64) float wide[kTile * 2 * kPanel];
    HWY_NAMESPACE::AddValues<Value>(args.probabilities, args.m, group->tile[group->summed], {}, tokens, width,
                                    wide, state.acc, state.acc_stride);
  }
}

template <class Unit, int kTerms>
void AttendManyRows(const uint16_t* q, const AttendArgs& args, const PagedState& cache, SoftmaxState state,
                    float* scratch) {
  ManyRows<Unit, kTerms> products(args, q, RoundUp(args.value_dim, kPanel), state, scratch);
  AttendGroups<kTerms>(args, cache, state, &products);
}

#if HWY_TARGET == HWY_AVX3
template <int kRows, int kTerms>
void AttendFewRows(const uint16_t* q, const AttendArgs& args, const PagedState& cache, SoftmaxState state,
                   float* scratch) {
  FewRows<kRows, kTerms> products(args, q, RoundUp(args.value_dim, kPanel), state, scratch);
  AttendGroups<kTerms>(args, cache, state, &products);
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
