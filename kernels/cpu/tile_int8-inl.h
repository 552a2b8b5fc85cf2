// The products of tile_attention.cc over int8 state, with the bits of a bf16 state of the same values.
// Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_TILE_INT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_TILE_INT8_INL_H_
#undef SESSA_KERNELS_CPU_TILE_INT8_INL_H_
#else
#define SESSA_KERNELS_CPU_TILE_INT8_INL_H_
#endif

#include <algorithm>

#include "kernels/cpu/int8_state-inl.h"
#include "kernels/cpu/tile_few_rows-inl.h"
#include "kernels/cpu/tile_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// Many rows: a tile becomes one of bf16 when it is wanted, in the second-level cache, where it serves up to
// 64 rows. The keys of one group of tiles and the values of one are there.
template <class ManyRows>
class NarrowedRows : public ManyRows {
 public:
  using Tile = TileOfState<Value>;

  // scratch: TileAttendScratch floats.
  NarrowedRows(const AttendArgs& args, const uint16_t* q, int width, SoftmaxState state, float* scratch)
      : ManyRows(args, q, width, state, scratch),
        dim_(args.dim),
        value_stride_(width + kPanel),
        keys_(reinterpret_cast<uint32_t*>(scratch + TileAttendScratch(dim_, width, DType::kBF16))),
        values_(keys_ + kJointTiles * KeyPairs(kTile)) {}
  Tile TileAt(const PagedState&, int, int tokens, int place) const {
    Tile tile;
    tile.dim = dim_, tile.tokens = tokens, tile.ldv = value_stride_;
    for (int i = 0; i < tile.num_panels(); ++i) {
      tile.key[i] = reinterpret_cast<const Value*>(Keys(place, i));
      tile.value[i] = reinterpret_cast<const Value*>(Values(place, i));
    }
    return tile;
  }
  void FetchKeys(const PagedState& cache, const Group<Tile>& group, int i) {
    const Int8Tile from(cache, dim_, group.begin[i], group.tile[i].tokens);
    for (int p = 0; p < from.num_panels(); ++p) NarrowKeys(from.key[p], dim_, Keys(i, p));
  }
  void FetchValues(const PagedState& cache, const Group<Tile>& group) {
    for (int i = 0; i < group.summed; ++i) {
      const Int8Tile from(cache, dim_, group.begin[i], group.tile[i].tokens);
      for (int p = 0; p < from.num_panels(); ++p)
        NarrowValues(from.value[p], from.width, value_stride_, Values(i, p));
    }
  }

 private:
  int64_t KeyPairs(int tokens) const { return int64_t{tokens} * PanelRows(dim_) / 2; }
  uint32_t* Keys(int place, int panel) const { return keys_ + KeyPairs(place * kTile + panel * kPanel); }
  uint32_t* Values(int place, int panel) const {
    return values_ + int64_t{place * kTile + panel * kPanel} / 2 * value_stride_;
  }

  const int dim_;
  const int64_t value_stride_;            // pairs; a power of two would fall into the same cache sets
  uint32_t *const keys_, *const values_;  // of kJointTiles tiles
};

#if HWY_TARGET == HWY_AVX3
// Few rows: memory sets the pace (a line of 64 columns takes 6 cycles), so values are multiplied as integers
// and scaled by groups: keys' sums of a step, and the probabilities of values. That scales by powers of two,
// which is exact: other bits than those of scaled values could only come of products below 2^-126, which show
// in no probability and in no sum above 2^-100.
template <int kRows, int kTerms>
class Int8FewRows : public FewRows<kRows, kTerms> {
  using Base = FewRows<kRows, kTerms>;
  using Base::dim_, Base::width_, Base::state_, Base::q_, Base::kV;

 public:
  using Tile = Int8Tile;
  using Base::Base;

  int ScoreSteps(const Tile& tile) const { return CeilDiv(tile.num_panels(), kV) * TileSteps(dim_) * 2; }
  int ValueSteps(const Group<Tile>& group) const { return CeilDiv(width_, kV * kPanel) * group.Steps() * 2; }
  Tile TileAt(const PagedState& cache, int begin, int tokens, int) const {
    return Tile(cache, dim_, begin, tokens);
  }
  void FetchKeys(const PagedState&, const Group<Tile>&, int) {}
  void FetchValues(const PagedState&, const Group<Tile>&) {}

  template <class Meanwhile>
  HWY_NOINLINE void Scores(const Tile& tile, Meanwhile* meanwhile, float* scores) {
    const FlushesDenormals flushes;
    int p = 0;
    for (; p + kV <= tile.num_panels(); p += kV) ScoresOf<kV>(tile, p, &meanwhile->lines, scores);
    for (; p < tile.num_panels(); ++p) ScoresOf<1>(tile, p, &meanwhile->lines, scores);
  }
  HWY_NOINLINE void AddValues(const Group<Tile>& group, const uint16_t* p, const float* weights,
                              LinesAhead* ahead) {
    Base::Rescale(weights);
    const FlushesDenormals flushes;
    for (int i = 0; i < group.summed; ++i) {
      const Tile& tile = group.tile[i];
      for (int g = 0; g < Int8Groups(width_); ++g) {
        for (int step = 0; step * kTileDepth < tile.tokens; ++step) {
          Scale(tile, g, step * kTileDepth, p + Probabilities<kTerms>::Step(i, step));
          const int columns = Int8Columns(width_, g);
          int n = 0;
          for (; n + kV * kPanel <= columns; n += kV * kPanel)
            AddValuesOf<kV>(tile, g, step * kTileDepth, n, ahead);
          for (; n < columns; n += kPanel) AddValuesOf<1>(tile, g, step * kTileDepth, n, ahead);
        }
      }
    }
  }

 private:
  template <int kPanels>
  HWY_INLINE void ScoresOf(const Tile& tile, int panel, LinesAhead* ahead, float* scores) {
    VF sum[kPanels][kRows];
    for (auto& row : sum) std::fill_n(row, kRows, hn::Zero(kF));
    for (int first = 0; first < PanelRows(dim_); first += kTileDepth) {
      const int group = first / kStateGroup, column = first % kStateGroup;
      const int8_t* key[kPanels];
      VF scale[kPanels];
      SESSA_UNROLL
      for (int v = 0; v < kPanels; ++v) {
        const int8_t* block = tile.key[panel + v] + group * kInt8BlockBytes;
        key[v] = block + column * kPanel;
        scale[v] = LoadScales(block + kPanel * Int8Columns(dim_, group));
      }
      Add<kPanels>(
          q_[first / kTileDepth], std::min(kPairs, (PanelRows(dim_) - first) / 2),
          [&](int half, int v) { return key[v] + half * kPanel * kPanel; }, 2 * kPanel, kPanel,
          [&](int v, VF x, VF to) { return hn::MulAdd(x, scale[v], to); }, ahead, sum);
    }
    for (int v = 0; v < kPanels; ++v) {
      for (int r = 0; r < kRows; ++r)
        hn::Store(sum[v][r], kF, scores + r * kScoreStride + (panel + v) * kPanel);
    }
  }

  template <int kVectors>
  HWY_INLINE void AddValuesOf(const Tile& tile, int group, int token, int n, LinesAhead* ahead) {
    const int pairs = std::min(kPairs, (tile.tokens - token + 1) / 2);
    float* acc = state_.acc + group * kStateGroup + n;
    VF sum[kVectors][kRows];
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < kRows; ++r) sum[v][r] = hn::LoadU(kF, acc + r * state_.acc_stride + v * kLanes);
    }
    const auto add = [&](int columns) HWY_ATTR {
      Add<kVectors>(
          scaled_, pairs,
          [&](int half, int v) {
            return tile.value[token / kPanel + half] + group * kInt8BlockBytes + n + v * kPanel;
          },
          2 * columns, columns, [&](int, VF x, VF to) { return to + x; }, ahead, sum);
    };
    const int columns = Int8Columns(width_, group);
    columns == kStateGroup ? add(kStateGroup) : add(columns);
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < kRows; ++r) hn::StoreU(sum[v][r], kF, acc + r * state_.acc_stride + v * kLanes);
    }
  }

  // sum[kVectors][kRows] += what the tile unit gives for `pairs` pairs of a step, joined by `join`.
  // first(half, v): where the first of 8 pairs of vector v lies, from one pair to the next and within one.
  template <int kVectors, class First, class Join>
  HWY_INLINE void Add(const LeftStep<kRows, kTerms>& left, int pairs, const First& first, int64_t to_next,
                      int64_t to_odd, const Join& join, LinesAhead* ahead, VF (&sum)[kVectors][kRows]) {
    StepSums<kRows, kTerms, kVectors> step;
    for (int half = 0; half * kPairs / 2 < pairs; ++half) {
      ahead->Step();
      const int8_t* y[kVectors];
      SESSA_UNROLL
      for (int v = 0; v < kVectors; ++v) y[v] = first(half, v);
      const int end = std::min(pairs, (half + 1) * kPairs / 2);
      for (int j = half * kPairs / 2; j < end; ++j) {
        SESSA_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const VF y0 = LoadInt8(y[v]), y1 = LoadInt8(y[v] + to_odd);
          __builtin_prefetch(y[v] + 2 * kInt8BlockBytes);
          y[v] += to_next;
          step.Add(left, j, v, y0, y1);
        }
      }
    }
    step.Join(join, sum);
  }

  // The probabilities of 32 tokens times their scales in a group; 0 behind the last token, whose bytes are
  // another's.
  HWY_INLINE void Scale(const Tile& tile, int group, int first, const uint16_t* p) {
    const int exponents = kPanel * Int8Columns(width_, group);
    alignas(64) float scale[kTileDepth] = {};
    for (int t = 0; t < kTileDepth && first + t < tile.tokens; t += kPanel) {
      const int8_t* block = tile.value[(first + t) / kPanel] + group * kInt8BlockBytes;
      const auto inside = hn::FirstN(kF, static_cast<size_t>(tile.tokens - first - t));
      hn::Store(hn::IfThenElseZero(inside, LoadScales(block + exponents)), kF, scale + t);
    }
    const VF low = hn::Load(kF, scale), high = hn::Load(kF, scale + kPanel);
    const VF even = hn::ConcatEven(kF, high, low), odd = hn::ConcatOdd(kF, high, low);
    scaled_ = {p, kTileValues};
    SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SESSA_UNROLL
      for (int t = 0; t < kTerms; ++t) {
        hn::Store(hn::Load(kF, scaled_.x[r][t][0]) * even, kF, scaled_.x[r][t][0]);
        hn::Store(hn::Load(kF, scaled_.x[r][t][1]) * odd, kF, scaled_.x[r][t][1]);
      }
    }
  }

  LeftStep<kRows, kTerms> scaled_;
};
#endif

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
