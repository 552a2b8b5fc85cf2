#include "kernels/cpu/int8_tiles.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cpu/tile_unit.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/int8_tiles.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/int8-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

constexpr int kGroupBytes = kScaleGroup * kPanel;    // of a panel's weights
constexpr int kHighBytes = kTileRows * kScaleGroup;  // of a tile of A; as many low ones and the scales follow

void QuantizeTiles(const float* a, int64_t lda, int m, int k, int tile, uint8_t* packed) {
  const int groups = ScaleGroups(k), first = tile * kTileRows, rows = std::min(m - first, kTileRows);
  packed += int64_t{tile} * groups * kInt8TileBytes;
  for (int g = 0; g < groups; ++g, packed += kInt8TileBytes) {
    for (int r = 0; r < rows; ++r) {
      alignas(64) int32_t q[kScaleGroup];
      const float scale = QuantizeValues(a + (first + r) * lda + g * kScaleGroup, k - g * kScaleGroup, q);
      uint8_t *high = packed + r * kScaleGroup, *low = high + kHighBytes;
      for (int i = 0; i < kScaleGroup; ++i) high[i] = static_cast<uint8_t>(q[i] >> 8);
      for (int i = 0; i < kScaleGroup; ++i) low[i] = static_cast<uint8_t>(q[i]);
      std::memcpy(packed + 2 * kHighBytes + r * sizeof(scale), &scale, sizeof(scale));
    }
  }
}

// The integer sums of a group, [kPanels][high, low][16][16], scaled and joined to acc [rows][16 kPanels].
template <int kPanels>
HWY_INLINE void Join(const int32_t* sums, const float* row_scales, const uint16_t* scales,
                     int64_t panel_scales, int rows, bool first, float* acc) {
  const hn::Rebind<hwy::bfloat16_t, decltype(kF)> kB;
  constexpr int kV = kPanels * kVectors;
  VF scale[kV];
  SESSA_UNROLL
  for (int v = 0; v < kV; ++v) {
    const auto* s = reinterpret_cast<const hwy::bfloat16_t*>(scales + v / kVectors * panel_scales);
    scale[v] = hn::PromoteTo(kF, hn::LoadU(kB, s + v % kVectors * kLanes));
  }
  for (int r = 0; r < rows; ++r, acc += kPanels * kPanel) {
    const VF row_scale = hn::Set(kF, row_scales[r]);
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      const int32_t* high = sums + v / kVectors * 2 * kTileSums + r * kPanel + v % kVectors * kLanes;
      const VI sum = hn::ShiftLeft<8>(hn::LoadU(kI32, high)) + hn::LoadU(kI32, high + kTileSums);
      float* out = acc + v * kLanes;
      const VF before = first ? hn::Zero(kF) : hn::LoadU(kF, out);
      hn::StoreU(hn::MulAdd(hn::ConvertTo(kF, sum) * row_scale, scale[v], before), kF, out);
    }
  }
}

// One row tile and kPanels panels. While the tile unit works on a group the vector unit joins the last but
// one (what the unit has just stored it would wait for);
// and the weights [ahead, ahead_end) of each panel come closer, 16 lines with each group. A second panel is
// `panel` bytes behind the first, in another matrix where they are gated, and its scales `panel_scales`.
template <class Unit, int kPanels>
HWY_NOINLINE void TileGroups(const uint8_t* a, int rows, int groups, const int8_t* b, int64_t panel,
                             const uint16_t* scales, int64_t panel_scales, const int8_t* ahead,
                             const int8_t* ahead_end, float* acc) {
  alignas(64) int32_t sums[3][2 * kPanels * kTileSums];
  const auto join = [&](int g) HWY_ATTR {
    const auto* row_scales = reinterpret_cast<const float*>(a + int64_t{g} * kInt8TileBytes + 2 * kHighBytes);
    Join<kPanels>(sums[g % 3], row_scales, scales + g * kPanel, panel_scales, rows, g == 0, acc);
  };
  for (int g = 0; g < groups; ++g, b += kGroupBytes) {
    const uint8_t* left = a + int64_t{g} * kInt8TileBytes;
    Unit::template Zero<0>();
    Unit::template Zero<1>();
    Unit::template Load<6>(b, 64);
    Unit::template Load<4>(left, 64);
    Unit::template DotI8<0, 4, 6>();
    Unit::template Load<5>(left + kHighBytes, 64);
    Unit::template DotU8<1, 5, 6>();
    if constexpr (kPanels == 2) {
      Unit::template Zero<2>();
      Unit::template Zero<3>();
      Unit::template Load<7>(b + panel, 64);
      Unit::template DotI8<2, 4, 7>();
      Unit::template DotU8<3, 5, 7>();
    }
    for (const int8_t* end = std::min(ahead + kGroupBytes, ahead_end); ahead < end; ahead += 64) {
      __builtin_prefetch(ahead, 0, 2);
      if constexpr (kPanels == 2) __builtin_prefetch(ahead + panel, 0, 2);
    }
    if (g > 1) join(g - 2);
    int32_t* to = sums[g % 3];
    Unit::template Store<0>(to, 64);
    Unit::template Store<1>(to + kTileSums, 64);
    if constexpr (kPanels == 2) {
      Unit::template Store<2>(to + 2 * kTileSums, 64);
      Unit::template Store<3>(to + 3 * kTileSums, 64);
    }
  }
  if (groups > 1) join(groups - 2);
  join(groups - 1);
}

// The part of [first, first + bytes) that is asked for beside a row tile.
struct Ahead {
  Ahead(const int8_t* first, int64_t bytes, int tile, int tiles)
      : begin(first + bytes * tile / tiles / 64 * 64), end(first + bytes * (tile + 1) / tiles / 64 * 64) {}
  const int8_t *const begin, *const end;
};

HWY_INLINE void AddBias(const float* bias, int rows, int columns, float* acc, int stride) {
  for (int r = 0; r < rows && bias != nullptr; ++r) {
    for (int j = 0; j < columns; ++j) acc[r * stride + j] += bias[j];
  }
}

template <class Unit>
void Int8TileLinearOn(const uint8_t* a, int m, const Int8Panels& w, const float* bias, Epilogue epilogue,
                      float* c, int64_t ldc) {
  const int tiles = TilesOf(m), panels = CeilDiv(w.n, kPanel), groups = ScaleGroups(w.k);
  const int64_t panel = Int8PanelSize(w.k), panel_scales = Int8PanelScales(w.k),
                row_tile = int64_t{groups} * kInt8TileBytes;
  alignas(64) float acc[kTileRows * 2 * kPanel];
  Unit::Begin(kTileRows);
  for (int p = 0, now; p < panels; p += now) {
    now = std::min(2, panels - p);
    const int columns = std::min(w.n - p * kPanel, now * kPanel);
    const int8_t* b = w.data + p * panel;
    const uint16_t* scales = w.scales + p * panel_scales;
    for (int t = 0; t < tiles; ++t) {
      const int rows = std::min(m - t * kTileRows, kTileRows);
      const uint8_t* left = a + t * row_tile;
      const Ahead ahead(b + now * panel, p + now < panels ? panel : 0, t, tiles);
      now == 2 ? TileGroups<Unit, 2>(left, rows, groups, b, panel, scales, panel_scales, ahead.begin,
                                     ahead.end, acc)
               : TileGroups<Unit, 1>(left, rows, groups, b, panel, scales, panel_scales, ahead.begin,
                                     ahead.end, acc);
      AddBias(bias == nullptr ? nullptr : bias + p * kPanel, rows, columns, acc, now * kPanel);
      Apply(epilogue, acc, now * kPanel, rows, columns, c + int64_t{t} * kTileRows * ldc + p * kPanel, ldc);
    }
  }
  Unit::End();
}

// A panel of each matrix at once, whose products meet before they are stored.
template <class Unit>
void Int8TileGatedOn(const uint8_t* a, int m, const Int8Panels& gate, const Int8Panels& up,
                     const float* gate_bias, const float* up_bias, float* c, int64_t ldc) {
  const int tiles = TilesOf(m), groups = ScaleGroups(gate.k);
  const int64_t panel = Int8PanelSize(gate.k), row_tile = int64_t{groups} * kInt8TileBytes;
  const int8_t* b = gate.data;
  const uint16_t* scales = gate.scales;
  constexpr int kStride = 2 * kPanel;
  alignas(64) float acc[kTileRows * kStride];
  Unit::Begin(kTileRows);
  for (int column = 0; column < gate.n;
       column += kPanel, b += panel, scales += Int8PanelScales(gate.k), c += kPanel) {
    const int columns = std::min(gate.n - column, kPanel);
    for (int t = 0; t < tiles; ++t) {
      const int rows = std::min(m - t * kTileRows, kTileRows);
      const Ahead ahead(b + panel, column + kPanel < gate.n ? panel : 0, t, tiles);
      TileGroups<Unit, 2>(a + t * row_tile, rows, groups, b, up.data - gate.data, scales,
                          up.scales - gate.scales, ahead.begin, ahead.end, acc);
      AddBias(gate_bias == nullptr ? nullptr : gate_bias + column, rows, columns, acc, kStride);
      AddBias(up_bias == nullptr ? nullptr : up_bias + column, rows, columns, acc + kPanel, kStride);
      Apply(Epilogue::kSiluGate, acc, kStride, rows, columns, acc + kPanel, kStride);
      Apply(Epilogue::kNone, acc + kPanel, kStride, rows, columns, c + int64_t{t} * kTileRows * ldc, ldc);
    }
  }
  Unit::End();
}

void Int8TileGated(MatrixUnit unit, const uint8_t* a, int m, const Int8Panels& gate, const Int8Panels& up,
                   const float* gate_bias, const float* up_bias, float* c, int64_t ldc) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  if (unit == MatrixUnit::kAmx) return Int8TileGatedOn<Amx>(a, m, gate, up, gate_bias, up_bias, c, ldc);
#endif
  (void)unit;
  Int8TileGatedOn<TileModel>(a, m, gate, up, gate_bias, up_bias, c, ldc);
}

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
// One row and one panel of quads on the vector unit: AMX sleeps between single rows (tiles.cc). Lanes hold
// the sums of half a quad each, of eight columns.
HWY_INLINE void OneRowPanel(const uint32_t* x, const Int8Panels& w, int p, float* acc) {
  const int groups = ScaleGroups(w.k);
  const int8_t* b = w.data + p * Int8PanelSize(w.k);
  const auto* scales = reinterpret_cast<const hwy::bfloat16_t*>(w.scales + p * Int8PanelScales(w.k));
  const hn::Rebind<hwy::bfloat16_t, decltype(kF)> kB;
  const hn::Repartition<uint64_t, decltype(kI32)> kU64;
  VF sum = hn::Zero(kF);
  for (int g = 0; g < groups; ++g, x += kGroupWords) {
    VI low[2] = {hn::Zero(kI32), hn::Zero(kI32)}, high[2] = {low[0], low[0]};
    for (int quad = 0; quad < kScaleGroup / 4; quad += 2) {
      SESSA_UNROLL
      for (int j = 0; j < 2; ++j, b += 4 * kPanel) {
        uint64_t values;
        std::memcpy(&values, x + 2 * (quad + j), sizeof(values));
        const VI left = hn::BitCast(kI32, hn::Set(kU64, values));
        low[j] = AddPairs(low[j], left, LoadPairs(b));
        high[j] = AddPairs(high[j], left, LoadPairs(b + 2 * kPanel));
      }
    }
    const VI of_low = low[0] + low[1], of_high = high[0] + high[1];
    const VI whole = hn::ConcatEven(kI32, of_high, of_low) + hn::ConcatOdd(kI32, of_high, of_low);
    const VF row_scale = hn::Set(kF, std::bit_cast<float>(x[kScaleGroup / 2]));
    sum = hn::MulAdd(hn::ConvertTo(kF, whole) * row_scale,
                     hn::PromoteTo(kF, hn::LoadU(kB, scales + g * kPanel)), sum);
  }
  hn::StoreU(sum, kF, acc);
}

void Int8OneRow(const uint32_t* x, const Int8Panels& w, const float* bias, Epilogue epilogue, float* c) {
  for (int p = 0; p < CeilDiv(w.n, kPanel); ++p) {
    const int columns = std::min(w.n - p * kPanel, kPanel);
    float acc[kPanel];
    OneRowPanel(x, w, p, acc);
    for (int j = 0; j < columns && bias != nullptr; ++j) acc[j] += bias[p * kPanel + j];
    Apply(epilogue, acc, kPanel, 1, columns, c + p * kPanel, kPanel);
  }
}
#endif

void Int8TileLinear(MatrixUnit unit, const uint8_t* a, int packed_rows, int m, const Int8Panels& w,
                    const float* bias, Epilogue epilogue, float* c, int64_t ldc) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  if (unit == MatrixUnit::kAmx) {
    if (OnVectorUnit(unit, packed_rows))
      return Int8OneRow(reinterpret_cast<const uint32_t*>(a), w, bias, epilogue, c);
    return Int8TileLinearOn<Amx>(a, m, w, bias, epilogue, c, ldc);
  }
#endif
  (void)unit, (void)packed_rows;
  Int8TileLinearOn<TileModel>(a, m, w, bias, epilogue, c, ldc);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(QuantizeTiles);
HWY_EXPORT(Int8TileLinear);
HWY_EXPORT(Int8TileGated);

void QuantizeTiles(MatrixUnit unit, const float* a, int64_t lda, int m, int k, int tile, uint8_t* packed) {
  if (OnVectorUnit(unit, m)) return QuantizeRows(a, lda, m, k, tile, reinterpret_cast<uint32_t*>(packed));
  HWY_DYNAMIC_DISPATCH(QuantizeTiles)(a, lda, m, k, tile, packed);
}
void Int8TileLinear(MatrixUnit unit, const uint8_t* a, int packed_rows, int m, const Int8Panels& w,
                    const float* bias, Epilogue epilogue, float* c, int64_t ldc) {
  HWY_DYNAMIC_DISPATCH(Int8TileLinear)(unit, a, packed_rows, m, w, bias, epilogue, c, ldc);
}
void Int8TileGated(MatrixUnit unit, const uint8_t* a, int m, const Int8Panels& gate, const Int8Panels& up,
                   const float* gate_bias, const float* up_bias, float* c, int64_t ldc) {
  HWY_DYNAMIC_DISPATCH(Int8TileGated)(unit, a, m, gate, up, gate_bias, up_bias, c, ldc);
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
