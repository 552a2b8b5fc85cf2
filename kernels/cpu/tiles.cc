#include "kernels/cpu/tiles.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/tile_unit.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/tiles.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// `count` values from x, at most a tile's depth, as `terms` rows of bf16, `stride` apart.
HWY_INLINE void PackRow(const float* x, int count, int terms, int stride, uint16_t* to) {
  alignas(64) float rest[kTileDepth] = {};
  if (count < kTileDepth) x = std::copy_n(x, count, rest) - count;
  for (int t = 0; t < terms; ++t, to += stride) {
    if (t > 0) {
      for (int j = 0; j < kTileDepth; j += kLanes) {
        const VF value = hn::LoadU(kF, x + j);
        hn::Store(value - RoundAs(DType::kBF16, value), kF, rest + j);
      }
      x = rest;
    }
    RoundToPairs(x, kTileDepth, reinterpret_cast<Bf16Pair*>(to));
  }
}

void PackTiles(const float* a, int64_t lda, int m, int k, int terms, int tile, uint16_t* packed) {
  const int first = tile * kTileRows, rows = std::min(m - first, kTileRows), steps = TileSteps(k);
  const int stride = TileStride(m);
  packed += static_cast<int64_t>(tile) * steps * terms * stride;
  for (int i = 0; i < steps; ++i, packed += terms * stride) {
    const int count = std::min(kTileDepth, k - i * kTileDepth);
    for (int r = 0; r < rows; ++r)
      PackRow(a + (first + r) * lda + i * kTileDepth, count, terms, stride, packed + r * kTileDepth);
  }
}

// What a thread asks for while its tile unit works: the weights that come next, a few cache lines with each
// step of k, as bursts would stop the unit's own loads (64 rows and more; 256 lines at once halved the rate).
struct Ahead {
  const char *next, *end;
  int lines;  // with each step
  HWY_INLINE void Step() {
    for (int i = 0; i < lines && next < end; ++i, next += 64) __builtin_prefetch(next, 0, 2);
  }
};

// kRowTiles x kPanels tiles of C, all of k in registers: tiles 0 to 3 are sums [2 row tiles][2 panels] that
// begin with the bias, 4 and 5 the left side, 6 and 7 the weights. `row_tile` values are between tiles of the
// left side, `panel` bytes between panels. c: rows ldc floats apart.
template <class Unit, int kRowTiles, int kPanels, int kTerms>
HWY_INLINE void TileProduct(const uint16_t* a, int64_t row_tile, const char* b, int64_t panel, int steps,
                            const float* bias, float* c, int64_t ldc, Ahead* ahead) {
  Unit::template Load<0>(bias, 0);
  if constexpr (kPanels == 2) Unit::template Load<1>(bias + kPanel, 0);
  if constexpr (kRowTiles == 2) Unit::template Load<2>(bias, 0);
  if constexpr (kRowTiles == 2 && kPanels == 2) Unit::template Load<3>(bias + kPanel, 0);
  for (int i = 0; i < steps; ++i, b += kTileValues * 2) {
    ahead->Step();
    SESSA_UNROLL
    for (int t = 0; t < kTerms; ++t, a += kTileValues) {
      if (t == 0) Unit::template Load<6>(b, 64);
      Unit::template Load<4>(a, 64);
      if constexpr (kPanels == 2) {
        if (t == 0) Unit::template Load<7>(b + panel, 64);
      }
      Unit::template DotBf16<0, 4, 6>();
      if constexpr (kRowTiles == 2) Unit::template Load<5>(a + row_tile, 64);
      if constexpr (kPanels == 2) Unit::template DotBf16<1, 4, 7>();
      if constexpr (kRowTiles == 2) Unit::template DotBf16<2, 5, 6>();
      if constexpr (kRowTiles == 2 && kPanels == 2) Unit::template DotBf16<3, 5, 7>();
    }
  }
  const int64_t stride = ldc * sizeof(float);
  Unit::template Store<0>(c, stride);
  if constexpr (kPanels == 2) Unit::template Store<1>(c + kPanel, stride);
  if constexpr (kRowTiles == 2) Unit::template Store<2>(c + kTileRows * ldc, stride);
  if constexpr (kRowTiles == 2 && kPanels == 2) Unit::template Store<3>(c + kTileRows * ldc + kPanel, stride);
}

// kPanels panels for all row tiles. Whole tiles go straight to c, others by way of `edge`.
template <class Unit, int kPanels, int kTerms>
HWY_NOINLINE void TileProducts(const uint16_t* a, int m, const char* b, int k, int columns, const float* bias,
                               float* c, int64_t ldc, float* edge, Ahead* ahead) {
  const int steps = TileSteps(k), tiles = TilesOf(m);
  const int64_t panel = static_cast<int64_t>(steps) * kTileValues * 2, row_tile = panel / 2 * kTerms;
  for (int t = 0; t < tiles; t += 2) {
    const int count = std::min(2, tiles - t), rows = std::min(m - t * kTileRows, count * kTileRows);
    const bool whole = rows == count * kTileRows && columns == kPanels * kPanel;
    float* y = c + static_cast<int64_t>(t) * kTileRows * ldc;
    float* to = whole ? y : edge;
    const int64_t ld = whole ? ldc : 2 * kPanel;
    if (count == 2) {
      TileProduct<Unit, 2, kPanels, kTerms>(a + t * row_tile, row_tile, b, panel, steps, bias, to, ld, ahead);
    } else {
      TileProduct<Unit, 1, kPanels, kTerms>(a + t * row_tile, row_tile, b, panel, steps, bias, to, ld, ahead);
    }
    if (!whole) StoreOutputs(edge, ld, rows, columns, nullptr, y, ldc);
  }
}

// The products of one tile of the left side's terms (4 to 6) with a tile of weights, to the sums kSum.
template <class Unit, int kTerms, int kSum>
HWY_INLINE void AddProducts(const char* b) {
  Unit::template Load<7>(b, 64);
  Unit::template DotBf16<kSum, 4, 7>();
  if constexpr (kTerms == 3) {
    Unit::template DotBf16<kSum, 5, 7>();
    Unit::template DotBf16<kSum, 6, 7>();
  }
}

// A single row tile and kPanels panels: as many chains of products, each of which waits 52 cycles for the one
// before. kRowTiles == 1 of TileProduct has two, and one row took it 1.5 times as long.
template <class Unit, int kPanels, int kTerms>
HWY_INLINE void FewRowsProduct(const uint16_t* a, int left_tile, const char* b, int64_t panel, int steps,
                               const float* bias, float* c, int64_t ldc) {
  Unit::template Load<0>(bias, 0);
  if constexpr (kPanels > 1) Unit::template Load<1>(bias + kPanel, 0);
  if constexpr (kPanels > 2) Unit::template Load<2>(bias + 2 * kPanel, 0);
  if constexpr (kPanels > 3) Unit::template Load<3>(bias + 3 * kPanel, 0);
  for (int i = 0; i < steps; ++i, a += kTerms * left_tile, b += kTileValues * 2) {
    Unit::template Load<4>(a, 64);
    if constexpr (kTerms == 3) Unit::template Load<5>(a + left_tile, 64);
    if constexpr (kTerms == 3) Unit::template Load<6>(a + 2 * left_tile, 64);
    AddProducts<Unit, kTerms, 0>(b);
    if constexpr (kPanels > 1) AddProducts<Unit, kTerms, 1>(b + panel);
    if constexpr (kPanels > 2) AddProducts<Unit, kTerms, 2>(b + 2 * panel);
    if constexpr (kPanels > 3) AddProducts<Unit, kTerms, 3>(b + 3 * panel);
  }
  const int64_t stride = ldc * sizeof(float);
  Unit::template Store<0>(c, stride);
  if constexpr (kPanels > 1) Unit::template Store<1>(c + kPanel, stride);
  if constexpr (kPanels > 2) Unit::template Store<2>(c + 2 * kPanel, stride);
  if constexpr (kPanels > 3) Unit::template Store<3>(c + 3 * kPanel, stride);
}

// At most kTileRows rows.
template <class Unit, int kTerms>
void FewRows(const uint16_t* a, int left_tile, int m, const Panels& w, const float* bias, float* c,
             int64_t ldc) {
  constexpr int kMost = 4;  // panels at once
  const int steps = TileSteps(w.k), num_panels = CeilDiv(w.n, kPanel);
  const int64_t panel = static_cast<int64_t>(steps) * kTileValues * 2;
  alignas(64) float edge[kTileRows * kMost * kPanel];
  Unit::Begin(m);
  for (int p = 0, panels; p < num_panels; p += panels) {
    const int left = num_panels - p, columns = std::min(w.n - p * kPanel, kMost * kPanel);
    panels = std::min(left, kMost);
    alignas(64) float start[kMost * kPanel] = {};
    if (bias != nullptr) std::copy_n(bias + p * kPanel, columns, start);
    const char* b = static_cast<const char*>(w.data) + p * panel;
    const bool whole = columns == panels * kPanel;
    float* to = whole ? c + p * kPanel : edge;
    const int64_t ld = whole ? ldc : kMost * kPanel;
    switch (panels) {
      case 1: FewRowsProduct<Unit, 1, kTerms>(a, left_tile, b, panel, steps, start, to, ld); break;
      case 2: FewRowsProduct<Unit, 2, kTerms>(a, left_tile, b, panel, steps, start, to, ld); break;
      case 3: FewRowsProduct<Unit, 3, kTerms>(a, left_tile, b, panel, steps, start, to, ld); break;
      default: FewRowsProduct<Unit, 4, kTerms>(a, left_tile, b, panel, steps, start, to, ld); break;
    }
    if (!whole) StoreOutputs(edge, ld, m, columns, nullptr, c + p * kPanel, ldc);
  }
  Unit::End();
}

template <class Unit, int kTerms>
void TileLinearOn(const uint16_t* a, int left_tile, int m, const Panels& w, const float* bias, float* c,
                  int64_t ldc) {
  const int tiles = TilesOf(m), num_panels = CeilDiv(w.n, kPanel);
  if (tiles == 1) return FewRows<Unit, kTerms>(a, left_tile, m, w, bias, c, ldc);
  const int64_t panel = static_cast<int64_t>(TileSteps(w.k)) * kTileValues * 2;
  const char* data = static_cast<const char*>(w.data);
  alignas(64) float edge[2 * kTileRows * 2 * kPanel];
  Unit::Begin(kTileRows);
  for (int p = 0, panels; p < num_panels; p += panels) {
    panels = std::min(2, num_panels - p);
    const int columns = std::min(w.n - p * kPanel, panels * kPanel);
    alignas(64) float start[2 * kPanel] = {};
    if (bias != nullptr) std::copy_n(bias + p * kPanel, columns, start);
    const char* b = data + p * panel;
    // 32 lines are what a step of two panels reads. Up to 32 rows wait for memory, and the hardware looks
    // ahead for them.
    Ahead ahead{b + panels * panel, b + std::min(2 * panels, num_panels - p) * panel,
                tiles > 2 ? CeilDiv(32, CeilDiv(tiles, 2)) : 0};
    float* y = c + p * kPanel;
    if (panels == 2) {
      TileProducts<Unit, 2, kTerms>(a, m, b, w.k, columns, start, y, ldc, edge, &ahead);
    } else {
      TileProducts<Unit, 1, kTerms>(a, m, b, w.k, columns, start, y, ldc, edge, &ahead);
    }
  }
  Unit::End();
}

#if HWY_TARGET == HWY_AVX3
// kPanels panels of one row, in the order and with the bits of the tile unit (tiles.h): chains of even and of
// odd k from 0 for each tile and term, then both to the sum. Requires FlushesDenormals.
template <int kPanels, int kTerms>
HWY_NOINLINE void OneRowProduct(const uint16_t* a, int left_tile, const char* b, int64_t panel, int steps,
                                const float* bias, float* c) {
  constexpr int kPairs = kTileDepth / 2;
  VF sum[kPanels];
  for (int p = 0; p < kPanels; ++p) sum[p] = hn::LoadU(kF, bias + p * kPanel);
  for (int i = 0; i < steps; ++i, a += kTerms * left_tile, b += kTileValues * 2) {
    alignas(64) float left[kTerms][2][kPairs];
    VF even[kPanels][kTerms], odd[kPanels][kTerms], row[2];
    SESSA_UNROLL
    for (int t = 0; t < kTerms; ++t) {
      LoadStep(reinterpret_cast<const hwy::bfloat16_t*>(a + t * left_tile), row);
      hn::Store(row[0], kF, left[t][0]);
      hn::Store(row[1], kF, left[t][1]);
      SESSA_UNROLL
      for (int p = 0; p < kPanels; ++p) even[p][t] = odd[p][t] = hn::Zero(kF);
    }
    for (int j = 0; j < kPairs; ++j) {  // not unrolled: gcc would take `left` out of registers with shuffles
      SESSA_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        LoadStep(reinterpret_cast<const hwy::bfloat16_t*>(b + p * panel) + j * 2 * kPanel, row);
        SESSA_UNROLL
        for (int t = 0; t < kTerms; ++t) {
          even[p][t] = hn::MulAdd(hn::Set(kF, left[t][0][j]), row[0], even[p][t]);
          odd[p][t] = hn::MulAdd(hn::Set(kF, left[t][1][j]), row[1], odd[p][t]);
        }
      }
    }
    SESSA_UNROLL
    for (int t = 0; t < kTerms; ++t) {
      SESSA_UNROLL
      for (int p = 0; p < kPanels; ++p) sum[p] = hn::Add(sum[p], hn::Add(even[p][t], odd[p][t]));
    }
  }
  for (int p = 0; p < kPanels; ++p) hn::StoreU(sum[p], kF, c + p * kPanel);
}

// One row, on the vector unit: AMX sleeps after half a microsecond without work, wakes in up to five, and has
// one row done no sooner.
template <int kTerms>
void OneRow(const uint16_t* a, int left_tile, const Panels& w, const float* bias, float* c) {
  constexpr int kMost = 2;  // panels at once: what there are registers for
  const int steps = TileSteps(w.k), num_panels = CeilDiv(w.n, kPanel);
  const int64_t panel = static_cast<int64_t>(steps) * kTileValues * 2;
  const FlushesDenormals flushes;
  for (int p = 0, panels; p < num_panels; p += panels) {
    panels = std::min(num_panels - p, kMost);
    const int columns = std::min(w.n - p * kPanel, panels * kPanel);
    alignas(64) float start[kMost * kPanel] = {}, sums[kMost * kPanel];
    if (bias != nullptr) std::copy_n(bias + p * kPanel, columns, start);
    const char* b = static_cast<const char*>(w.data) + p * panel;
    panels == 2 ? OneRowProduct<2, kTerms>(a, left_tile, b, panel, steps, start, sums)
                : OneRowProduct<1, kTerms>(a, left_tile, b, panel, steps, start, sums);
    std::copy_n(sums, columns, c + p * kPanel);
  }
}
#endif

void TileLinear(MatrixUnit unit, const uint16_t* a, int left_tile, int m, int terms, const Panels& w,
                const float* bias, float* c, int64_t ldc) {
#if HWY_TARGET == HWY_AVX3
  if (unit == MatrixUnit::kAmx) {
    if (m == 1) return terms == 1 ? OneRow<1>(a, left_tile, w, bias, c) : OneRow<3>(a, left_tile, w, bias, c);
    return terms == 1 ? TileLinearOn<Amx, 1>(a, left_tile, m, w, bias, c, ldc)
                      : TileLinearOn<Amx, 3>(a, left_tile, m, w, bias, c, ldc);
  }
#endif
  (void)unit;
  terms == 1 ? TileLinearOn<TileModel, 1>(a, left_tile, m, w, bias, c, ldc)
             : TileLinearOn<TileModel, 3>(a, left_tile, m, w, bias, c, ldc);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(PackTiles);
HWY_EXPORT(TileLinear);

void PackTiles(const float* a, int64_t lda, int m, int k, int terms, int tile, uint16_t* packed) {
  HWY_DYNAMIC_DISPATCH(PackTiles)(a, lda, m, k, terms, tile, packed);
}
void TileLinear(MatrixUnit unit, const uint16_t* a, int left_tile, int m, int terms, const Panels& w,
                const float* bias, float* c, int64_t ldc) {
  HWY_DYNAMIC_DISPATCH(TileLinear)(unit, a, left_tile, m, terms, w, bias, c, ldc);
}

bool HasAmx() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool has = [] {
    unsigned eax, ebx, ecx, edx;
    constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // CPUID 7.0, EDX
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    if ((edx & (kAmxBf16 | kAmxTile)) != (kAmxBf16 | kAmxTile)) return false;
    // The tiles' 8 KiB of state must be asked for: Linux 5.16 and later, Documentation/arch/x86/xstate.rst. A
    // sandbox or an older system says no.
    constexpr int kArchReqXcompPerm = 0x1023, kXfeatureXtiledata = 18;
    if (syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) != 0) return false;
    return (hwy::SupportedTargets() & HWY_AVX3) != 0;
  }();
  return has;
#else
  return false;
#endif
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
