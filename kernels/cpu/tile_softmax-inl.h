// What tile_attention.cc does between its products: the groups of tiles that share a maximum, their softmax,
// and the cache lines that come closer meanwhile. Included once for each Highway target.
#if defined(SESSA_KERNELS_CPU_TILE_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_TILE_SOFTMAX_INL_H_
#undef SESSA_KERNELS_CPU_TILE_SOFTMAX_INL_H_
#else
#define SESSA_KERNELS_CPU_TILE_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/int8_state-inl.h"
#include "kernels/cpu/state_tiles-inl.h"
#include "kernels/cpu/tile_attention.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

using Value = hwy::bfloat16_t;
using Tile = TileOfState<Value>;

constexpr int kStepsOfTile = kTile / kTileDepth, kPairs = kTileDepth / 2;
// Between rows of scores: a panel more than there are, or they would fall into the same cache sets.
constexpr int kScoreStride = kJointTiles * kTile + kPanel;

// The values of 32 tokens as pairs of rows; what lies behind the last token counts as 0.
struct PairRows {
  PairRows() = default;
  PairRows(const Tile& tile, int step) {
    const int first = step * kTileDepth;
    pairs = std::min(kTileDepth, tile.tokens - first + 1) / 2;
    odd = tile.tokens % 2 == 1 && tile.tokens < first + kTileDepth;
    for (int j = 0; j < pairs; ++j) {
      const int token = first + 2 * j;
      row[j] = tile.value[token / kPanel] + token % kPanel * tile.ldv;
    }
    stride = 2 * tile.ldv;
    whole = pairs == kPairs && !odd && row[kPairs / 2] == row[0] + kPairs / 2 * stride;
  }
  const Value* row[kPairs];
  int64_t stride = 0;
  int pairs = 0;
  bool odd = false;    // of the last pair, the second token is behind the end
  bool whole = false;  // a tile as it lies, rows `stride` apart
};

// Tiles of a chain that share a maximum.
template <class Tile>
struct Group {
  void Add(const Tile& t, int first) { tile[count] = t, begin[count++] = first; }
  Tile tile[kJointTiles];
  int begin[kJointTiles];  // their first tokens' positions
  int count = 0;
  int summed = 0;      // tiles whose values enter as products: all but the one whose probabilities are wanted
  int Steps() const {  // of the products
    int steps = 0;
    for (int i = 0; i < summed; ++i) steps += CeilDiv(tile[i].tokens, kTileDepth);
    return steps;
  }
};

// Where probabilities go: rounded, as tiles of a left side, and the last tile's as they are, where wanted.
template <int kTerms>
struct Probabilities {
  static constexpr int Step(int tile, int step) {
    return (tile * kStepsOfTile + step) * kTerms * kTileValues;
  }
  static constexpr int64_t kRowTile = kJointTiles * kStepsOfTile * kTerms * kTileValues;  // between row tiles
  alignas(64) uint16_t packed[kTile / kTileRows * kRowTile];
};

constexpr int kVectorsOfStep = kTileDepth / static_cast<int>(kLanes);

HWY_INLINE VF LoadBf16(const uint16_t* x) {
  const hn::RebindToUnsigned<decltype(kF)> u;
  return hn::BitCast(kF,
                     hn::ShiftLeft<16>(hn::PromoteTo(u, hn::LoadU(hn::Rebind<uint16_t, decltype(u)>(), x))));
}

// 32 probabilities as rows of kTerms tiles. kNative: by the instruction of processors with a tile unit. (It
// takes denormals for 0, as the unit then does.)
template <bool kNative, int kTerms>
HWY_INLINE void PackProbabilities(VF (&p)[kVectorsOfStep], uint16_t* to) {
  SESSA_UNROLL
  for (int t = 0; t < kTerms; ++t, to += kTileValues) {
    if constexpr (kNative) {
#if HWY_TARGET == HWY_AVX3
      VF rounded;
      asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(rounded.raw) : "v"(p[0].raw), "v"(p[1].raw));
      hn::Store(rounded, kF, reinterpret_cast<float*>(to));
#endif
    } else {
      alignas(64) float values[kTileDepth];
      for (int v = 0; v < kVectorsOfStep; ++v) hn::Store(p[v], kF, values + v * kLanes);
      RoundToPairs(values, kTileDepth, reinterpret_cast<Bf16Pair*>(to));
    }
    if (t + 1 == kTerms) break;
    SESSA_UNROLL
    for (int v = 0; v < kVectorsOfStep; ++v) p[v] = p[v] - LoadBf16(to + v * kLanes);
  }
}

// The softmax of groups, row by row, so that it can go on while the tile unit works on the next group's
// scores.
template <bool kNative, int kTerms, class Tile>
class Softmax {
 public:
  Softmax(const AttendArgs& args, SoftmaxState state)
      : args_(args), factor_(args.scale * 1.44269504f), max_(state.max), sum_(state.sum) {  // log2 e
    if (!args.begins) return;
    std::fill_n(max_, args.m, -std::numeric_limits<float>::infinity());
    std::fill_n(sum_, args.m, 0.0f);
  }
  // scores [m][kScoreStride] become probabilities relative to the new maxima. Both must stay until Finish.
  void Start(const Group<Tile>* group, float* scores) { group_ = group, scores_ = scores, row_ = 0; }
  // The next row, if one is left.
  HWY_INLINE void Step() {
    if (row_ < args_.m) Row(row_++);
  }
  void Finish() {
    while (row_ < args_.m) Row(row_++);
    const VF factor = hn::Set(kF, factor_);
    for (int r = 0; r < args_.m; r += kLanes) {  // what was summed before weighs less now
      alignas(64) float before[kLanes] = {};
      std::copy_n(max_ + r, std::min<int>(kLanes, args_.m - r), before);
      const VF max = hn::Load(kF, before),
               weight = Exp2OfNegative(hn::MulSub(max, factor, hn::Load(kF, shift_ + r)));
      hn::Store(hn::IfThenElse(hn::Load(kF, top_ + r) == max, hn::Set(kF, 1.0f), weight), kF, weights_ + r);
    }
    for (int r = 0; r < args_.m; ++r) max_[r] = top_[r], sum_[r] = sum_[r] * weights_[r] + total_[r];
  }
  const float* weights() const { return weights_; }  // of what was summed before, by rows
  const uint16_t* probabilities() const { return p_.packed; }
  // Of scores until then.
  void ScaleMaxima() {
    for (int r = 0; r < args_.m; ++r) max_[r] *= args_.scale;
  }

 private:
  HWY_NOINLINE void Row(int r) {
    const float top = Peak(r, scores_ + r * kScoreStride);
    top_[r] = top;
    // A row that has seen nothing yet: all that is hidden then lies infinitely far below 0.
    shift_[r] = top == -std::numeric_limits<float>::infinity() ? 0.0f : top * factor_;
    const VF factor = hn::Set(kF, factor_), shift = hn::Set(kF, shift_[r]);
    VF total[kVectorsOfStep], values[kVectorsOfStep];
    for (VF& x : total) x = hn::Zero(kF);
    uint16_t* to = p_.packed + r / kTileRows * p_.kRowTile + r % kTileRows * kTileDepth;
    for (int i = 0; i < group_->count; ++i) {
      const float* x = scores_ + r * kScoreStride + i * kTile;
      for (int step = 0; step * kTileDepth < group_->tile[i].tokens; ++step) {
        const bool rounded = i < group_->summed;
        SESSA_UNROLL
        for (int v = 0; v < kVectorsOfStep; ++v) {
          const VF power = hn::MulSub(hn::Load(kF, x + step * kTileDepth + v * kLanes), factor, shift);
          // What becomes one bf16 term, of 8 bits, needs no more than 13.
          values[v] = kTerms == 1 && rounded ? RoughExp2OfNegative(power) : Exp2OfNegative(power);
          total[v] = total[v] + values[v];
        }
        if (rounded) {
          PackProbabilities<kNative, kTerms>(values, to + p_.Step(i, step));
        } else {
          for (int v = 0; v < kVectorsOfStep; ++v)
            hn::StoreU(values[v], kF, args_.probabilities + r * kTile + step * kTileDepth + v * kLanes);
        }
      }
    }
    VF all = total[0];
    for (int v = 1; v < kVectorsOfStep; ++v) all = all + total[v];
    total_[r] = hn::GetLane(hn::SumOfLanes(kF, all));
  }
  // The largest score of a row, of what it saw before too; what it does not see becomes -inf.
  HWY_INLINE float Peak(int r, float* row) {
    const VF hidden = hn::Set(kF, -std::numeric_limits<float>::infinity());
    VF peak = hn::Set(kF, max_[r]);
    for (int i = 0; i < group_->count; ++i) {
      float* x = row + i * kTile;
      const int first = args_.first_visible == nullptr ? 0 : args_.first_visible[r] - group_->begin[i],
                last = args_.visible[r] - group_->begin[i];
      if (first <= 0 && last >= kTile) {
        for (int v = 0; v < kTile; v += kLanes) peak = hn::Max(peak, hn::Load(kF, x + v));
        continue;
      }
      for (int v = 0; v < kTile; v += kLanes) {
        const auto before = [&](int n) { return hn::FirstN(kF, static_cast<size_t>(std::max(0, n - v))); };
        const VF y = hn::IfThenElse(hn::AndNot(before(first), before(last)), hn::Load(kF, x + v), hidden);
        hn::Store(y, kF, x + v);
        peak = hn::Max(peak, y);
      }
    }
    return hn::GetLane(hn::MaxOfLanes(kF, peak));
  }

  const AttendArgs& args_;
  const float factor_;             // of scores, for powers of 2
  float *const max_, *const sum_;  // of the state; maxima of scores
  const Group<Tile>* group_ = nullptr;
  float* scores_ = nullptr;
  int row_ = kTile;
  alignas(64) float top_[kTile] = {}, shift_[kTile] = {}, total_[kTile], weights_[kTile];
  Probabilities<kTerms> p_;
};

// Cache lines that are wanted soon, asked for a few at a time: bursts would stop the unit's own loads.
class LinesAhead {
 public:
  // What is then added is asked for in about so many steps.
  void Start(int steps) { steps_ = std::max(1, steps), count_ = at_ = lines_ = 0; }
  void Keys(const Tile& tile) {
    for (int p = 0; p < tile.num_panels(); ++p) Add(tile.key[p], PanelRows(tile.dim) / 2);
  }
  void Values(const Tile& tile, int width) {
    for (int t = 0; t < tile.tokens; t += 2)
      Add(tile.value[t / kPanel] + t % kPanel * tile.ldv, width / kPanel);
  }
  void Keys(const Int8Tile& tile) { Panels(tile.key, tile.num_panels(), tile.dim); }
  void Values(const Int8Tile& tile, int width) { Panels(tile.value, tile.num_panels(), width); }
  HWY_INLINE void Step() {
    for (int i = each_; i > 0 && at_ < count_; --i) {
      Run& run = run_[at_];
      __builtin_prefetch(run.next, 0, 2);
      if ((run.next += 64) == run.end) ++at_;
    }
  }

 private:
  struct Run {
    const char *next, *end;
  };
  void Panels(const int8_t* const* panel, int count, int width) {
    for (int p = 0; p < count; ++p) Add(panel[p], static_cast<int>(CeilDiv(Int8PanelBytes(width), 64)));
  }
  void Add(const void* first, int lines) {
    const char* x = static_cast<const char*>(first);
    run_[count_++] = {x, x + lines * 64};
    each_ = CeilDiv(lines_ += lines, steps_);
  }
  Run run_[kJointTiles * kTile / 2];
  int steps_ = 1, count_ = 0, at_ = 0, lines_ = 0, each_ = 0;
};

// What goes on while the tile unit works on scores: lines come closer, and another group's softmax.
template <class Softmax>
struct Meanwhile {
  void Start(Softmax* of, int num_rows, int num_steps) {
    softmax = of, rows = num_rows, steps = num_steps, due = 0;
  }
  HWY_INLINE void Step() {
    lines.Step();
    for (due += rows; due >= steps; due -= steps) softmax->Step();
  }
  LinesAhead lines;
  Softmax* softmax = nullptr;
  int rows = 0, steps = 1, due = 0;  // rows are spread over the steps
};

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle guard
