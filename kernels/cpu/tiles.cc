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

// `count` values from x, at most a tile's depth, as `terms` rows of bf16, kTileValues apart.
HWY_INLINE void PackRow(const float* x, int count, int terms, uint16_t* to) {
  alignas(64) float rest[kTileDepth] = {};
  if (count < kTileDepth) x = std::copy_n(x, count, rest) - count;
  for (int t = 0; t < terms; ++t, to += kTileValues) {
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
  packed += static_cast<int64_t>(tile) * steps * terms * kTileValues;
  for (int i = 0; i < steps; ++i, packed += terms * kTileValues) {
    const int count = std::min(kTileDepth, k - i * kTileDepth);
    for (int r = 0; r < rows; ++r)
      PackRow(a + (first + r) * lda + i * kTileDepth, count, terms, packed + r * kTileDepth);
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

template <class Unit, int kTerms>
void TileLinearOn(const uint16_t* a, int m, const Panels& w, const float* bias, float* c, int64_t ldc) {
  const int tiles = TilesOf(m), num_panels = CeilDiv(w.n, kPanel);
  const int64_t panel = static_cast<int64_t>(TileSteps(w.k)) * kTileValues * 2;
  const char* data = static_cast<const char*>(w.data);
  alignas(64) float edge[2 * kTileRows * 2 * kPanel];
  Unit::Begin();
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

void TileLinear(MatrixUnit unit, const uint16_t* a, int m, int terms, const Panels& w, const float* bias,
                float* c, int64_t ldc) {
#if HWY_TARGET == HWY_AVX3
  if (unit == MatrixUnit::kAmx) {
    return terms == 1 ? TileLinearOn<Amx, 1>(a, m, w, bias, c, ldc)
                      : TileLinearOn<Amx, 3>(a, m, w, bias, c, ldc);
  }
#endif
  (void)unit;
  terms == 1 ? TileLinearOn<TileModel, 1>(a, m, w, bias, c, ldc)
             : TileLinearOn<TileModel, 3>(a, m, w, bias, c, ldc);
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
void TileLinear(MatrixUnit unit, const uint16_t* a, int m, int terms, const Panels& w, const float* bias,
                float* c, int64_t ldc) {
  HWY_DYNAMIC_DISPATCH(TileLinear)(unit, a, m, terms, w, bias, c, ldc);
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
