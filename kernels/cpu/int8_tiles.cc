#include "kernels/cpu/int8_tiles.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cpu/tile_unit.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/int8_tiles.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/int8_state-inl.h"
#include "kernels/cpu/tile_few_rows-inl.h"
#include "kernels/cpu/tile_products-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

constexpr int kGroupSteps = kScaleGroup / kTileDepth, kGroupPairs = kScaleGroup / 2;
static_assert(kScaleGroup % kTileDepth == 0);

HWY_INLINE VF LoadScale(const uint16_t* scales) {
  const hn::Rebind<hwy::bfloat16_t, decltype(kF)> b;
  return hn::PromoteTo(kF, hn::LoadU(b, reinterpret_cast<const hwy::bfloat16_t*>(scales)));
}

// Two panels of a matrix, or one of each of two that are gated. (Of an odd number the last is multiplied
// twice.)
struct TwoPanels {
  const int8_t* data[2];
  const uint16_t* scales[2];
  float bias[2][kPanel];
  int column, columns;  // of the output
};

// Four groups of two panels are 16 KiB, beside which the left side of a pair of row tiles stays in the
// first-level cache.
constexpr int kMostGroups = 4;

// What the sums of some groups of two panels are joined by.
struct JoinValues {
  alignas(64) float scales[2][kMostGroups * kPanel];
  alignas(64) float bias[2][kPanel];
};

// The sums of groups on their way to those of outputs: the vector unit joins the last but one while the tile
// unit works on the next (what the unit has just stored it would wait for).
class Joins {
 public:
  struct Group {
    const JoinValues* values;
    int group;               // of the values
    bool is_first, is_last;  // of an output's
    int pair, row, rows, row_tiles, column, columns;
  };
  explicit Joins(Background* background) : background_(background) {}

  float* parts() { return parts_[next_ % 3]; }  // [2 row tiles][2 panels][16][16], of the next group
  void Add(const Group& group) {
    group_[next_++ % 3] = group;
    if (next_ - done_ > 2) Join();
  }
  void Finish() {
    while (done_ < next_) Join();
  }

 private:
  HWY_NOINLINE void Join() {
    const Group& g = group_[done_ % 3];
    const float* parts = parts_[done_++ % 3];
    float* sums = background_->sums(g.pair);
    if (g.is_first && background_->IsHandingOn(sums)) background_->Finish();
    for (int p = 0; p < 2; ++p) {
      for (int t = 0; t < g.row_tiles; ++t) {
        const int at = (2 * t + p) * kTileSums;
        const float *scale = g.values->scales[p] + g.group * kPanel, *bias = g.values->bias[p];
        g.is_first ? JoinTile<true>(parts + at, scale, bias, sums + at)
                   : JoinTile<false>(parts + at, scale, bias, sums + at);
      }
    }
    if (g.is_last) background_->HandOn(g.pair, g.row, g.rows, g.column, g.columns);
  }
  template <bool kFirst>
  static HWY_INLINE void JoinTile(const float* part, const float* scales, const float* bias, float* sum) {
    VF scale[kVectors], start[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      scale[v] = hn::Load(kF, scales + v * kLanes);
      start[v] = hn::Load(kF, bias + v * kLanes);
    }
    for (int i = 0; i < kTileSums; i += kPanel) {
      SESSA_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const int at = i + v * static_cast<int>(kLanes);
        const VF before = kFirst ? start[v] : hn::Load(kF, sum + at);
        hn::Store(hn::MulAdd(hn::Load(kF, part + at), scale[v], before), kF, sum + at);
      }
    }
  }

  Background* const background_;
  alignas(64) float parts_[3][4 * kTileSums];
  Group group_[3];
  int next_ = 0, done_ = 0;
};

// The products of a left side of more rows than a tile has, in blocks: some groups of k of two panels for up
// to 512 rows. While the units work on a block the next one becomes tiles.
template <class Unit, int kTerms, class PanelsAt>
void ManyInt8Rows(const uint16_t* a, int m, int k, int num_panels, const PanelsAt& panels_at,
                  Background* background) {
  constexpr int kRows = kMostPairs * 2 * kTileRows;
  constexpr int64_t kPanelTiles = kMostGroups * kGroupSteps * kTileValues;
  alignas(64) static constexpr float kZeros[2 * kPanel] = {};
  const StartOfSums zeros{kZeros, true};
  const int steps = TileSteps(k), groups = ScaleGroups(k),
            at_once = CeilDiv(groups, CeilDiv(groups, kMostGroups)), blocks = CeilDiv(groups, at_once),
            row_blocks = CeilDiv(m, kRows), total = num_panels * row_blocks * blocks;
  const int64_t row_tile = int64_t{steps} * kTileValues * kTerms;
  alignas(64) uint16_t tiles[2][2 * kPanelTiles];
  JoinValues values[4];  // joins of two blocks before may be left
  const auto widen = [&](int i) HWY_ATTR {
    const TwoPanels panels = panels_at(i / blocks / row_blocks);
    const int group = i % blocks * at_once, count = std::min(at_once, groups - group),
              pairs = std::min(count * kGroupPairs, (steps - group * kGroupSteps) * kTileDepth / 2);
    JoinValues& to = values[i % 4];
    for (int p = 0; p < 2; ++p) {
      for (int v = 0; v < count * kPanel; v += static_cast<int>(kLanes))
        hn::Store(LoadScale(panels.scales[p] + group * kPanel + v), kF, to.scales[p] + v);
      std::copy_n(panels.bias[p], kPanel, to.bias[p]);
    }
    const int row_pairs = CeilDiv(std::min(kRows, m - i / blocks % row_blocks * kRows), 2 * kTileRows);
    const int64_t from = int64_t{group} * kScaleGroup * kPanel;
    background->Widen(panels.data[0] + from, panels.data[1] + from, pairs, tiles[i % 2], kPanelTiles,
                      CeilDiv(kTileDepth / 2, row_pairs));
  };
  Joins joins(background);
  widen(0);
  background->FinishWidening();
  for (int i = 0; i < total; ++i) {
    const TwoPanels panels = panels_at(i / blocks / row_blocks);
    const int first_row = i / blocks % row_blocks * kRows, group = i % blocks * at_once,
              count = std::min(at_once, groups - group);
    if (i + 1 < total) widen(i + 1);
    for (int row = first_row; row < std::min(m, first_row + kRows); row += 2 * kTileRows) {
      const uint16_t* left =
          a + row / kTileRows * row_tile + int64_t{group} * kGroupSteps * kTileValues * kTerms;
      const bool two = m - row > kTileRows;
      for (int g = 0; g < count; ++g, left += kGroupSteps * kTileValues * kTerms) {
        const auto* right = reinterpret_cast<const char*>(tiles[i % 2] + g * kGroupSteps * kTileValues);
        const int now = std::min(kGroupSteps, steps - (group + g) * kGroupSteps);
        two ? TileProduct<Unit, 2, 2, kTerms>(left, row_tile, right, kPanelTiles * 2, now, zeros,
                                              joins.parts(), background)
            : TileProduct<Unit, 1, 2, kTerms>(left, row_tile, right, kPanelTiles * 2, now, zeros,
                                              joins.parts(), background);
        joins.Add({&values[i % 4], g, group + g == 0, group + g + 1 == groups,
                   (row - first_row) / (2 * kTileRows), row, std::min(m - row, 2 * kTileRows), two ? 2 : 1,
                   panels.column, panels.columns});
      }
    }
    background->FinishWidening();
  }
  joins.Finish();
}

// The bias of a panel, 0 where there is none.
HWY_INLINE void CopyBias(const float* bias, int n, int panel, float* to) {
  std::fill_n(to, kPanel, 0.0f);
  if (bias != nullptr) std::copy_n(bias + panel * kPanel, std::min(kPanel, n - panel * kPanel), to);
}

// At most kTileRows rows: kPanels panels at once, a group of which becomes tiles while the unit works on the
// last but one (it waits for what was just stored): a tile with each product, as the processor looks ahead no
// further than half a group. The lines of the panels that come next are asked for as long before: the
// hardware loses a stream at the end of each page.
template <class Unit, int kPanels, int kTerms>
HWY_NOINLINE void FewRowsOfPanels(const uint16_t* a, int left_tile, int m, const Int8Panels& w, int panel,
                                  float* sums) {
  constexpr int kStride = kPanels * kPanel;
  constexpr int64_t kGroupTiles = kGroupSteps * kTileValues, kGroupBytes = kScaleGroup * kPanel;
  constexpr int kAtOnce = 4, kParts = 2 * kAtOnce;
  const int groups = ScaleGroups(w.k), steps = TileSteps(w.k);
  const int8_t* data = w.data + panel * Int8PanelSize(w.k);
  const uint16_t* scales = w.scales + panel * Int8PanelScales(w.k);
  alignas(64) uint16_t tiles[3][kPanels * kGroupTiles];
  alignas(64) float parts[kParts][kTileRows * kStride];
  const auto steps_of = [&](int g) { return std::min(kGroupSteps, steps - g * kGroupSteps); };
  const auto widen = [&](int g, int step, int p) HWY_ATTR {
    const int8_t* from = data + p * Int8PanelSize(w.k) + g * kGroupBytes + step * kTileValues;
    uint16_t* to = tiles[g % 3] + p * kGroupTiles + step * kTileValues;
    for (int i = 0; i < kTileValues; i += 2 * kPanel) {
      if (i % 64 == 0) __builtin_prefetch(from + kPanels * Int8PanelSize(w.k) + i, 0, 2);
      WidenPair(from + i, to + i);
    }
  };
  const auto widen_all = [&](int g) HWY_ATTR {
    for (int i = 0; g < groups && i < steps_of(g) * kPanels; ++i) widen(g, i / kPanels, i % kPanels);
  };
  // The next groups, so many at once that their sums are seldom taken up and put back.
  int joined = 0;
  const auto join = [&](auto num_groups) HWY_ATTR {
    constexpr int kGroups = decltype(num_groups)::value;
    for (int v = 0; v < kStride; v += static_cast<int>(kLanes)) {
      VF scale[kGroups];
      SESSA_UNROLL
      for (int i = 0; i < kGroups; ++i)
        scale[i] = LoadScale(scales + v / kPanel * Int8PanelScales(w.k) + (joined + i) * kPanel + v % kPanel);
      for (int r = 0; r < m; ++r) {
        const int at = r * kStride + v;
        VF sum = hn::Load(kF, sums + at);
        SESSA_UNROLL
        for (int i = 0; i < kGroups; ++i)
          sum = hn::MulAdd(hn::Load(kF, parts[(joined + i) % kParts] + at), scale[i], sum);
        hn::Store(sum, kF, sums + at);
      }
    }
    joined += kGroups;
  };
  using AtOnce = std::integral_constant<int, kAtOnce>;
  using One = std::integral_constant<int, 1>;
  widen_all(0);
  widen_all(1);
  for (int g = 0; g < groups; ++g, a += kGroupSteps * kTerms * left_tile) {
    const int next = g + 2, next_steps = next < groups ? steps_of(next) : 0;
    FewRowsProduct<Unit, kPanels, kTerms>(a, left_tile, reinterpret_cast<const char*>(tiles[g % 3]),
                                          kGroupTiles * 2, steps_of(g), nullptr, parts[g % kParts], kStride,
                                          [&](int step, int p) HWY_ATTR {
                                            if (step < next_steps) widen(next, step, p);
                                          });
    if (g + 1 - joined >= kAtOnce + 2) join(AtOnce());  // what the unit has just stored it would wait for
  }
  while (joined < groups) groups - joined >= kAtOnce ? join(AtOnce()) : join(One());
}

template <class Unit, int kTerms>
void FewInt8Rows(const uint16_t* a, int left_tile, int m, const Int8Panels& w, const float* bias,
                 Epilogue epilogue, float* c, int64_t ldc) {
  constexpr int kMost = 2;  // panels at once: the tiles of four would leave the first-level cache
  const int num_panels = CeilDiv(w.n, kPanel);
  alignas(64) float sums[kTileRows * kMost * kPanel];
  Unit::Begin(m);
  for (int p = 0, panels; p < num_panels; p += panels) {
    panels = num_panels - p >= kMost ? kMost : 1;
    const int stride = panels * kPanel;
    for (int i = 0; i < panels; ++i) CopyBias(bias, w.n, p + i, sums + i * kPanel);
    for (int r = 1; r < m; ++r) std::copy_n(sums, stride, sums + r * stride);
    panels == kMost ? FewRowsOfPanels<Unit, kMost, kTerms>(a, left_tile, m, w, p, sums)
                    : FewRowsOfPanels<Unit, 1, kTerms>(a, left_tile, m, w, p, sums);
    Apply(epilogue, sums, stride, m, std::min(w.n - p * kPanel, stride), c + p * kPanel, ldc);
  }
  Unit::End();
}

template <class Unit, int kTerms>
void Int8TileLinearOn(const uint16_t* a, int left_tile, int m, const Int8Panels& w, const float* bias,
                      Epilogue epilogue, float* c, int64_t ldc) {
  if (m <= kTileRows) return FewInt8Rows<Unit, kTerms>(a, left_tile, m, w, bias, epilogue, c, ldc);
  const int num_panels = CeilDiv(w.n, kPanel);
  Background background(epilogue, /*gated=*/false, {.c = c, .ldc = ldc}, kGroupSteps);
  Unit::Begin(kTileRows);
  ManyInt8Rows<Unit, kTerms>(
      a, m, w.k, CeilDiv(num_panels, 2),
      [&](int i) {
        TwoPanels panels;
        for (int j = 0; j < 2; ++j) {
          const int panel = std::min(2 * i + j, num_panels - 1);
          panels.data[j] = w.data + panel * Int8PanelSize(w.k);
          panels.scales[j] = w.scales + panel * Int8PanelScales(w.k);
          CopyBias(bias, w.n, panel, panels.bias[j]);
        }
        panels.column = 2 * i * kPanel, panels.columns = std::min(w.n - panels.column, 2 * kPanel);
        return panels;
      },
      &background);
  background.Finish();
  Unit::End();
}

template <class Unit, int kTerms>
void Int8TileGatedOn(const uint16_t* a, int m, const Int8Panels& gate, const Int8Panels& up,
                     const float* gate_bias, const float* up_bias, const TileOutput& out) {
  Background background(Epilogue::kSiluGate, /*gated=*/true, out, kGroupSteps);
  Unit::Begin(kTileRows);
  ManyInt8Rows<Unit, kTerms>(
      a, m, gate.k, CeilDiv(gate.n, kPanel),
      [&](int i) {
        TwoPanels panels;
        for (int j = 0; j < 2; ++j) {
          const Int8Panels& w = j == 0 ? gate : up;
          panels.data[j] = w.data + i * Int8PanelSize(w.k);
          panels.scales[j] = w.scales + i * Int8PanelScales(w.k);
          CopyBias(j == 0 ? gate_bias : up_bias, w.n, i, panels.bias[j]);
        }
        panels.column = i * kPanel, panels.columns = std::min(gate.n - panels.column, kPanel);
        return panels;
      },
      &background);
  background.Finish();
  Unit::End();
}

#if HWY_TARGET == HWY_AVX3
// kPanels panels of one row on the vector unit, with the tile unit's bits: AMX sleeps between single rows
// (tiles.cc).
template <int kPanels, int kTerms>
HWY_NOINLINE void OneRowProduct(const uint16_t* a, int left_tile, const Int8Panels& w, int panel,
                                float* sums) {
  const int steps = TileSteps(w.k);
  const int64_t panel_bytes = Int8PanelSize(w.k);
  const int8_t* b = w.data + panel * panel_bytes;
  const uint16_t* scales = w.scales + panel * Int8PanelScales(w.k);
  VF sum[kPanels];
  for (int p = 0; p < kPanels; ++p) sum[p] = hn::Load(kF, sums + p * kPanel);
  for (int first = 0; first < steps; first += kGroupSteps, scales += kPanel) {
    VF part[kPanels][1];
    for (int p = 0; p < kPanels; ++p) part[p][0] = hn::Zero(kF);
    for (int i = first; i < std::min(steps, first + kGroupSteps); ++i, a += kTerms * left_tile) {
      const LeftStep<1, kTerms> left(a, left_tile);
      StepSums<1, kTerms, kPanels> step;
      for (int j = 0; j < kPairs; ++j, b += 2 * kPanel) {
        SESSA_UNROLL
        for (int p = 0; p < kPanels; ++p) {
          if (j % 2 == 0) __builtin_prefetch(b + (kPanels + p) * panel_bytes, 0, 2);  // the next panels
          step.Add(left, j, p, LoadInt8(b + p * panel_bytes), LoadInt8(b + p * panel_bytes + kPanel));
        }
      }
      step.Join([](int, VF x, VF to) { return to + x; }, part);
    }
    SESSA_UNROLL
    for (int p = 0; p < kPanels; ++p)
      sum[p] = hn::MulAdd(part[p][0], LoadScale(scales + p * Int8PanelScales(w.k)), sum[p]);
  }
  for (int p = 0; p < kPanels; ++p) hn::Store(sum[p], kF, sums + p * kPanel);
}

template <int kTerms>
void OneRow(const uint16_t* a, int left_tile, const Int8Panels& w, const float* bias, Epilogue epilogue,
            float* c) {
  constexpr int kMost = kTerms == 1 ? 4 : 2;  // panels at once: what there are registers for
  const int num_panels = CeilDiv(w.n, kPanel);
  for (int p = 0, panels; p < num_panels; p += panels) {
    panels = num_panels - p >= kMost ? kMost : 1;
    alignas(64) float sums[kMost * kPanel];
    for (int i = 0; i < panels; ++i) CopyBias(bias, w.n, p + i, sums + i * kPanel);
    panels == kMost ? OneRowProduct<kMost, kTerms>(a, left_tile, w, p, sums)
                    : OneRowProduct<1, kTerms>(a, left_tile, w, p, sums);
    const int columns = std::min(w.n - p * kPanel, panels * kPanel);
    Apply(epilogue, sums, kMost * kPanel, 1, columns, c + p * kPanel, kMost * kPanel);
  }
}
#endif

template <int kTerms>
void Int8TileLinearWith(MatrixUnit unit, const uint16_t* a, int left_tile, int m, const Int8Panels& w,
                        const float* bias, Epilogue epilogue, float* c, int64_t ldc) {
  const FlushesDenormals flushes;
#if HWY_TARGET == HWY_AVX3
  if (unit == MatrixUnit::kAmx) {
    if (m == 1) return OneRow<kTerms>(a, left_tile, w, bias, epilogue, c);
    return Int8TileLinearOn<Amx, kTerms>(a, left_tile, m, w, bias, epilogue, c, ldc);
  }
#endif
  (void)unit;
  Int8TileLinearOn<TileModel, kTerms>(a, left_tile, m, w, bias, epilogue, c, ldc);
}

template <int kTerms>
void Int8TileGatedWith(MatrixUnit unit, const uint16_t* a, int m, const Int8Panels& gate,
                       const Int8Panels& up, const float* gate_bias, const float* up_bias,
                       const TileOutput& out) {
  const FlushesDenormals flushes;
#if HWY_TARGET == HWY_AVX3
  if (unit == MatrixUnit::kAmx) return Int8TileGatedOn<Amx, kTerms>(a, m, gate, up, gate_bias, up_bias, out);
#endif
  (void)unit;
  Int8TileGatedOn<TileModel, kTerms>(a, m, gate, up, gate_bias, up_bias, out);
}

void Int8TileLinear(MatrixUnit unit, const uint16_t* a, int left_tile, int m, int terms, const Int8Panels& w,
                    const float* bias, Epilogue epilogue, float* c, int64_t ldc) {
  terms == 1 ? Int8TileLinearWith<1>(unit, a, left_tile, m, w, bias, epilogue, c, ldc)
             : Int8TileLinearWith<3>(unit, a, left_tile, m, w, bias, epilogue, c, ldc);
}

void Int8TileGated(MatrixUnit unit, const uint16_t* a, int m, int terms, const Int8Panels& gate,
                   const Int8Panels& up, const float* gate_bias, const float* up_bias,
                   const TileOutput& out) {
  terms == 1 ? Int8TileGatedWith<1>(unit, a, m, gate, up, gate_bias, up_bias, out)
             : Int8TileGatedWith<3>(unit, a, m, gate, up, gate_bias, up_bias, out);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(Int8TileLinear);
HWY_EXPORT(Int8TileGated);

void Int8TileLinear(MatrixUnit unit, const uint16_t* a, int left_tile, int m, int terms, const Int8Panels& w,
                    const float* bias, Epilogue epilogue, float* c, int64_t ldc) {
  HWY_DYNAMIC_DISPATCH(Int8TileLinear)(unit, a, left_tile, m, terms, w, bias, epilogue, c, ldc);
}
void Int8TileGated(MatrixUnit unit, const uint16_t* a, int m, int terms, const Int8Panels& gate,
                   const Int8Panels& up, const float* gate_bias, const float* up_bias,
                   const TileOutput& out) {
  HWY_DYNAMIC_DISPATCH(Int8TileGated)(unit, a, m, terms, gate, up, gate_bias, up_bias, out);
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
