// The products of tile_attention.cc for few rows, on AVX-512 with the bits of a tile unit. Included once for
// each Highway target.
#if defined(SESSA_KERNELS_CPU_TILE_FEW_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_TILE_FEW_ROWS_INL_H_
#undef SESSA_KERNELS_CPU_TILE_FEW_ROWS_INL_H_
#else
#define SESSA_KERNELS_CPU_TILE_FEW_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "kernels/cpu/tile_softmax-inl.h"
#include "kernels/cpu/tile_unit.h"

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

// What the tile unit sums in one step, in its order: even and odd columns apart, each term on its own.
template <int kRows, int kTerms, int kV>
class StepSums {
 public:
  HWY_INLINE StepSums() {
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      SESSA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        SESSA_UNROLL
        for (int t = 0; t < kTerms; ++t) even_[v][r][t] = odd_[v][r][t] = hn::Zero(kF);
      }
    }
  }
  // The j-th pair, of vector v.
  HWY_INLINE void Add(const LeftStep<kRows, kTerms>& left, int j, int v, VF y0, VF y1) {
    SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SESSA_UNROLL
      for (int t = 0; t < kTerms; ++t) {
        even_[v][r][t] = hn::MulAdd(hn::Set(kF, left.x[r][t][0][j]), y0, even_[v][r][t]);
        odd_[v][r][t] = hn::MulAdd(hn::Set(kF, left.x[r][t][1][j]), y1, odd_[v][r][t]);
      }
    }
  }
  // sum[v][r] = join(v, a term's sum, sum[v][r]), term after term.
  template <class How>
  HWY_INLINE void Join(const How& join, VF (&sum)[kV][kRows]) const {
    SESSA_UNROLL
    for (int t = 0; t < kTerms; ++t) {
      SESSA_UNROLL
      for (int v = 0; v < kV; ++v) {
        SESSA_UNROLL
        for (int r = 0; r < kRows; ++r) sum[v][r] = join(v, even_[v][r][t] + odd_[v][r][t], sum[v][r]);
      }
    }
  }

 private:
  VF even_[kV][kRows][kTerms], odd_[kV][kRows][kTerms];
};

// sum[kVectors][kRows] += what the tile unit gives for `pairs` pairs of a step: row(j, v) is the j-th pair of
// vector v.
template <int kRows, int kTerms, int kV, class Row>
HWY_INLINE void AddStep(const LeftStep<kRows, kTerms>& left, int pairs, const Row& row,
                        VF (&sum)[kV][kRows]) {
  StepSums<kRows, kTerms, kV> step;
  for (int j = 0; j < pairs; ++j) {
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      VF y[2];
      LoadStep(row(j, v), y);
      step.Add(left, j, v, y[0], y[1]);
    }
  }
  step.Join([](int, VF x, VF to) { return to + x; }, sum);
}

// Few rows on the vector unit, with the tile unit's bits: memory sets the pace, and the unit takes
// microseconds to wake.
template <int kRows, int kTerms>
class FewRows {
 public:
  static constexpr bool kNative = true;
  using Tile = TileOfState<Value>;

  FewRows(const AttendArgs& args, const uint16_t* q, int width, SoftmaxState state, float* scratch)
      : last_(scratch),
        dim_(args.dim),
        width_(width),
        state_(state),
        q_(reinterpret_cast<LeftStep<kRows, kTerms>*>(scratch + width)) {
    for (int r = 0; r < kRows && args.begins; ++r) std::fill_n(state.acc + r * state.acc_stride, width, 0.0f);
    const int stride = TileStride(args.m);
    for (int i = 0; i < TileSteps(args.dim); ++i, q += kTerms * stride) q_[i] = {q, stride};
  }
  int ScoreSteps(const Tile& tile) const { return CeilDiv(tile.num_panels(), kV) * TileSteps(tile.dim); }
  int ValueSteps(const Group<Tile>& group) const { return CeilDiv(width_, kV * kPanel) * group.Steps(); }
  Tile TileAt(const PagedState& cache, int begin, int tokens, int) const {
    return Tile(cache, dim_, begin, tokens);
  }
  void FetchKeys(const PagedState&, const Group<Tile>&, int) {}
  void FetchValues(const PagedState&, const Group<Tile>&) {}

  template <class Meanwhile>
  HWY_NOINLINE void Scores(const Tile& tile, Meanwhile* meanwhile, float* scores) {
    LinesAhead* ahead = &meanwhile->lines;  // the softmax does not flush denormals: it comes after
    const FlushesDenormals flushes;
    int p = 0;
    for (; p + kV <= tile.num_panels(); p += kV) ScoresOf<kV>(tile, p, ahead, scores);
    for (; p < tile.num_panels(); ++p) ScoresOf<1>(tile, p, ahead, scores);
  }
  HWY_NOINLINE void AddValues(const Group<Tile>& group, const uint16_t* p, const float* weights,
                              LinesAhead* ahead) {
    Rescale(weights);
    const FlushesDenormals flushes;
    for (int i = 0; i < group.summed; ++i) {
      for (int step = 0; step * kTileDepth < group.tile[i].tokens; ++step) {
        const LeftStep<kRows, kTerms> left(p + Probabilities<kTerms>::Step(i, step), kTileValues);
        PairRows rows(group.tile[i], step);
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

 protected:
  static constexpr int kV = kRows * kTerms == 1 ? 4 : 2;  // vectors at once: what there are registers for

  void Rescale(const float* weights) {  // what was summed before
    for (int r = 0; r < kRows; ++r) {
      const VF w = hn::Set(kF, weights[r]);
      float* acc = state_.acc + r * state_.acc_stride;
      for (int n = 0; n < width_ && weights[r] != 1; n += kLanes)
        hn::StoreU(hn::LoadU(kF, acc + n) * w, kF, acc + n);
    }
  }

 private:
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
    ahead->Step();
    VF sum[kVectors][kRows];
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < kRows; ++r)
        sum[v][r] = hn::LoadU(kF, state_.acc + r * state_.acc_stride + n + v * kLanes);
    }
    AddStep(
        left, rows.pairs, [&](int j, int v) { return rows.row[j] + 2 * (n + v * kPanel); }, sum);
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < kRows; ++r)
        hn::StoreU(sum[v][r], kF, state_.acc + r * state_.acc_stride + n + v * kLanes);
    }
  }

  float* const last_;  // [width], a row of pairs

 protected:
  const int dim_, width_;
  const SoftmaxState state_;
  LeftStep<kRows, kTerms>* const q_;  // [TileSteps(dim)]
};

#endif
}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
