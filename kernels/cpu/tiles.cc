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
#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/tile_products-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// `count` values from x, at most a tile's depth, as `terms` rows of bf16, `stride` apart.
HWY_INLINE void PackRow(const float* x, int count, int terms, int stride, uint16_t* to) {
  if (terms == 1 && count == kTileDepth) return RoundToPairs(x, count, reinterpret_cast<Bf16Pair*>(to));
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
  // Row by row: those of a tile, often a power of two apart, fall into the same cache sets.
  for (int r = 0; r < rows; ++r, packed += kTileDepth) {
    const float* x = a + (first + r) * lda;
    for (int i = 0; i < steps; ++i, x += kTileDepth)
      PackRow(x, std::min(kTileDepth, k - i * kTileDepth), terms, stride, packed + i * terms * stride);
  }
}

// What sums begin as: a row for each panel, of all their rows; or what they were [2 row tiles][2 panels].
struct StartOfSums {
  const float* data;
  bool rows;
  template <class Unit, int kSum>
  HWY_INLINE void Load() const {
    rows ? Unit::template Load<kSum>(data + kSum % 2 * kPanel, 0)
         : Unit::template Load<kSum>(data + kSum * kTileSums, kPanel * sizeof(float));
  }
};

// Some steps of kRowTiles x kPanels tiles of C: tiles 0 to 3 are sums [2 row tiles][2 panels], 4 and 5 the
// left side, 6 and 7 the weights. `row_tile` values are between tiles of the left side, `panel` bytes between
// panels (of two matrices, where they are gated). The weights serve many rows, and stay in the first-level
// cache as the left side goes past it.
template <class Unit, int kRowTiles, int kPanels, int kTerms>
HWY_INLINE void TileProduct(const uint16_t* a, int64_t row_tile, const char* b, int64_t panel, int steps,
                            const StartOfSums& start, float* sums, Background<>* background) {
  start.Load<Unit, 0>();
  if constexpr (kPanels == 2) start.Load<Unit, 1>();
  if constexpr (kRowTiles == 2) start.Load<Unit, 2>();
  if constexpr (kRowTiles == 2 && kPanels == 2) start.Load<Unit, 3>();
  for (int i = 0; i < steps; ++i, b += kTileValues * 2) {
    background->Step();
    SESSA_UNROLL
    for (int t = 0; t < kTerms; ++t, a += kTileValues) {
      if (t == 0) Unit::template Load<6>(b, 64);
      Unit::template LoadPast<4>(a, 64);
      if constexpr (kPanels == 2) {
        if (t == 0) Unit::template Load<7>(b + panel, 64);
      }
      Unit::template DotBf16<0, 4, 6>();
      if constexpr (kRowTiles == 2) Unit::template LoadPast<5>(a + row_tile, 64);
      if constexpr (kPanels == 2) Unit::template DotBf16<1, 4, 7>();
      if constexpr (kRowTiles == 2) Unit::template DotBf16<2, 5, 6>();
      if constexpr (kRowTiles == 2 && kPanels == 2) Unit::template DotBf16<3, 5, 7>();
    }
  }
  Unit::template Store<0>(sums, 64);
  if constexpr (kPanels == 2) Unit::template Store<1>(sums + kTileSums, 64);
  if constexpr (kRowTiles == 2) Unit::template Store<2>(sums + 2 * kTileSums, 64);
  if constexpr (kRowTiles == 2 && kPanels == 2) Unit::template Store<3>(sums + 3 * kTileSums, 64);
}

// kPanels panels for all row tiles.
template <class Unit, int kPanels, int kTerms>
HWY_NOINLINE void TileProducts(const uint16_t* a, int m, const char* b, int64_t panel, int steps, int column,
                               int columns, const float* bias, Background<>* background) {
  const int64_t row_tile = static_cast<int64_t>(steps) * kTileValues * kTerms;
  ForRows<2 * kTileRows>(m, steps, column, columns, SumsAsTheyAre(), background,
                         [&](int row, int rows, int step, int now, bool begins, float* sums) HWY_ATTR {
                           const uint16_t* left =
                               a + row / kTileRows * row_tile + int64_t{step} * kTileValues * kTerms;
                           const char* right = b + int64_t{step} * kTileValues * 2;
                           const StartOfSums start{begins ? bias : sums, begins};
                           rows > kTileRows ? TileProduct<Unit, 2, kPanels, kTerms>(
                                                  left, row_tile, right, panel, now, start, sums, background)
                                            : TileProduct<Unit, 1, kPanels, kTerms>(
                                                  left, row_tile, right, panel, now, start, sums, background);
                         });
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
// before. kRowTiles == 1 of TileProduct has two, and one row took it 1.5 times as long. The panels that come
// next are asked for, as long ahead: the hardware loses a stream at the end of each page.
template <class Unit, int kPanels, int kTerms>
HWY_INLINE void FewRowsProduct(const uint16_t* a, int left_tile, const char* b, int64_t panel, int steps,
                               const float* bias, float* c, int64_t ldc) {
  Unit::template Load<0>(bias, 0);
  if constexpr (kPanels > 1) Unit::template Load<1>(bias + kPanel, 0);
  if constexpr (kPanels > 2) Unit::template Load<2>(bias + 2 * kPanel, 0);
  if constexpr (kPanels > 3) Unit::template Load<3>(bias + 3 * kPanel, 0);
  for (int i = 0; i < steps; ++i, a += kTerms * left_tile, b += kTileValues * 2) {
    const auto ask = [&](int p) {
      const char* next = b + (kPanels + p) * panel;
      for (int line = 0; line < kTileValues * 2; line += 64) __builtin_prefetch(next + line, 0, 2);
    };
    Unit::template Load<4>(a, 64);
    if constexpr (kTerms == 3) Unit::template Load<5>(a + left_tile, 64);
    if constexpr (kTerms == 3) Unit::template Load<6>(a + 2 * left_tile, 64);
    AddProducts<Unit, kTerms, 0>(b), ask(0);
    if constexpr (kPanels > 1) AddProducts<Unit, kTerms, 1>(b + panel), ask(1);
    if constexpr (kPanels > 2) AddProducts<Unit, kTerms, 2>(b + 2 * panel), ask(2);
    if constexpr (kPanels > 3) AddProducts<Unit, kTerms, 3>(b + 3 * panel), ask(3);
  }
  const int64_t stride = ldc * sizeof(float);
  Unit::template Store<0>(c, stride);
  if constexpr (kPanels > 1) Unit::template Store<1>(c + kPanel, stride);
  if constexpr (kPanels > 2) Unit::template Store<2>(c + 2 * kPanel, stride);
  if constexpr (kPanels > 3) Unit::template Store<3>(c + 3 * kPanel, stride);
}

// At most kTileRows rows.
template <class Unit, int kTerms>
void FewRows(const uint16_t* a, int left_tile, int m, const Panels& w, const float* bias, Epilogue epilogue,
             float* c, int64_t ldc) {
  constexpr int kMost = 4;  // panels at once
  const int steps = TileSteps(w.k), num_panels = CeilDiv(w.n, kPanel);
  const int64_t panel = static_cast<int64_t>(steps) * kTileValues * 2;
  alignas(64) float sums[kTileRows * kMost * kPanel];
  Unit::Begin(m);
  for (int p = 0, panels; p < num_panels; p += panels) {
    const int left = num_panels - p, columns = std::min(w.n - p * kPanel, kMost * kPanel);
    panels = std::min(left, kMost);
    alignas(64) float start[kMost * kPanel] = {};
    if (bias != nullptr) std::copy_n(bias + p * kPanel, columns, start);
    const char* b = static_cast<const char*>(w.data) + p * panel;
    constexpr int kStride = kMost * kPanel;
    switch (panels) {
      case 1: FewRowsProduct<Unit, 1, kTerms>(a, left_tile, b, panel, steps, start, sums, kStride); break;
      case 2: FewRowsProduct<Unit, 2, kTerms>(a, left_tile, b, panel, steps, start, sums, kStride); break;
      case 3: FewRowsProduct<Unit, 3, kTerms>(a, left_tile, b, panel, steps, start, sums, kStride); break;
      default: FewRowsProduct<Unit, 4, kTerms>(a, left_tile, b, panel, steps, start, sums, kStride);
    }
    Apply(epilogue, sums, kStride, m, columns, c + p * kPanel, ldc);
  }
  Unit::End();
}

template <class Unit, int kTerms>
void TileLinearOn(const uint16_t* a, int left_tile, int m, const Panels& w, const float* bias,
                  Epilogue epilogue, float* c, int64_t ldc) {
  const int tiles = TilesOf(m), num_panels = CeilDiv(w.n, kPanel), steps = TileSteps(w.k);
  if (tiles == 1) return FewRows<Unit, kTerms>(a, left_tile, m, w, bias, epilogue, c, ldc);
  const int64_t panel = static_cast<int64_t>(steps) * kTileValues * 2;
  const char* data = static_cast<const char*>(w.data);
  Background<> background(epilogue, /*gated=*/false, {.c = c, .ldc = ldc}, StepsAtOnce(steps));
  Unit::Begin(kTileRows);
  for (int p = 0, panels; p < num_panels; p += panels) {
    panels = std::min(2, num_panels - p);
    const int column = p * kPanel, columns = std::min(w.n - column, panels * kPanel);
    alignas(64) float start[2 * kPanel] = {};
    if (bias != nullptr) std::copy_n(bias + column, columns, start);
    const char *b = data + p * panel, *next = b + panels * panel;
    background.Ask(next, next + panel, panel, LinesToAsk(tiles));
    panels == 2 ? TileProducts<Unit, 2, kTerms>(a, m, b, panel, steps, column, columns, start, &background)
                : TileProducts<Unit, 1, kTerms>(a, m, b, panel, steps, column, columns, start, &background);
  }
  Unit::End();
}

// A panel of each matrix at once, whose products meet before they are handed on.
template <class Unit, int kTerms>
void TileGatedOn(const uint16_t* a, int m, const Panels& gate, const Panels& up, const float* gate_bias,
                 const float* up_bias, const TileOutput& out) {
  const int steps = TileSteps(gate.k), tiles = TilesOf(m);
  const int64_t panel = static_cast<int64_t>(steps) * kTileValues * 2;
  const char* b = static_cast<const char*>(gate.data);
  const int64_t second = static_cast<const char*>(up.data) - b;
  Background<> background(Epilogue::kSiluGate, /*gated=*/true, out, StepsAtOnce(steps));
  Unit::Begin(kTileRows);
  for (int column = 0; column < gate.n; column += kPanel, b += panel) {
    const int columns = std::min(gate.n - column, kPanel);
    alignas(64) float start[2 * kPanel] = {};
    if (gate_bias != nullptr) std::copy_n(gate_bias + column, columns, start);
    if (up_bias != nullptr) std::copy_n(up_bias + column, columns, start + kPanel);
    background.Ask(b + panel, b + panel + second, panel, LinesToAsk(tiles));
    TileProducts<Unit, 2, kTerms>(a, m, b, second, steps, column, columns, start, &background);
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
        __builtin_prefetch(b + (kPanels + p) * panel + j * 4 * kPanel, 0, 2);  // the next panels
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
void OneRow(const uint16_t* a, int left_tile, const Panels& w, const float* bias, Epilogue epilogue,
            float* c) {
  constexpr int kMost = 2;  // panels at once: what there are registers for
  const int steps = TileSteps(w.k), num_panels = CeilDiv(w.n, kPanel);
  const int64_t panel = static_cast<int64_t>(steps) * kTileValues * 2;
  for (int p = 0, panels; p < num_panels; p += panels) {
    panels = std::min(num_panels - p, kMost);
    const int columns = std::min(w.n - p * kPanel, panels * kPanel);
    alignas(64) float start[kMost * kPanel] = {}, sums[kMost * kPanel];
    if (bias != nullptr) std::copy_n(bias + p * kPanel, columns, start);
    const char* b = static_cast<const char*>(w.data) + p * panel;
    {
      const FlushesDenormals flushes;
      panels == 2 ? OneRowProduct<2, kTerms>(a, left_tile, b, panel, steps, start, sums)
                  : OneRowProduct<1, kTerms>(a, left_tile, b, panel, steps, start, sums);
    }
    Apply(epilogue, sums, kMost * kPanel, 1, columns, c + p * kPanel, kMost * kPanel);
  }
}
#endif

template <int kTerms>
void TileLinearWith(MatrixUnit unit, const uint16_t* a, int left_tile, int m, const Panels& w,
                    const float* bias, Epilogue epilogue, float* c, int64_t ldc) {
#if HWY_TARGET == HWY_AVX3
  if (unit == MatrixUnit::kAmx) {
    if (m == 1) return OneRow<kTerms>(a, left_tile, w, bias, epilogue, c);
    return TileLinearOn<Amx, kTerms>(a, left_tile, m, w, bias, epilogue, c, ldc);
  }
#endif
  (void)unit;
  TileLinearOn<TileModel, kTerms>(a, left_tile, m, w, bias, epilogue, c, ldc);
}

template <class Unit>
void TileGatedWith(const uint16_t* a, int m, int terms, const Panels& gate, const Panels& up,
                   const float* gate_bias, const float* up_bias, const TileOutput& out) {
  terms == 1 ? TileGatedOn<Unit, 1>(a, m, gate, up, gate_bias, up_bias, out)
             : TileGatedOn<Unit, 3>(a, m, gate, up, gate_bias, up_bias, out);
}

void TileGated(MatrixUnit unit, const uint16_t* a, int m, int terms, const Panels& gate, const Panels& up,
               const float* gate_bias, const float* up_bias, const TileOutput& out) {
#if HWY_TARGET == HWY_AVX3
  if (unit == MatrixUnit::kAmx) return TileGatedWith<Amx>(a, m, terms, gate, up, gate_bias, up_bias, out);
#endif
  (void)unit;
  TileGatedWith<TileModel>(a, m, terms, gate, up, gate_bias, up_bias, out);
}

void TileLinear(MatrixUnit unit, const uint16_t* a, int left_tile, int m, int terms, const Panels& w,
                const float* bias, Epilogue epilogue, float* c, int64_t ldc) {
  terms == 1 ? TileLinearWith<1>(unit, a, left_tile, m, w, bias, epilogue, c, ldc)
             : TileLinearWith<3>(unit, a, left_tile, m, w, bias, epilogue, c, ldc);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(PackTiles);
HWY_EXPORT(TileLinear);
HWY_EXPORT(TileGated);

void PackTiles(const float* a, int64_t lda, int m, int k, int terms, int tile, uint16_t* packed) {
  HWY_DYNAMIC_DISPATCH(PackTiles)(a, lda, m, k, terms, tile, packed);
}
void TileLinear(MatrixUnit unit, const uint16_t* a, int left_tile, int m, int terms, const Panels& w,
                const float* bias, Epilogue epilogue, float* c, int64_t ldc) {
  HWY_DYNAMIC_DISPATCH(TileLinear)(unit, a, left_tile, m, terms, w, bias, epilogue, c, ldc);
}
void TileGated(MatrixUnit unit, const uint16_t* a, int m, int terms, const Panels& gate, const Panels& up,
               const float* gate_bias, const float* up_bias, const TileOutput& out) {
  HWY_DYNAMIC_DISPATCH(TileGated)(unit, a, m, terms, gate, up, gate_bias, up_bias, out);
}

bool HasInt8Dot() {
#if defined(__x86_64__)
  constexpr int64_t kAvx512 = HWY_AVX3 | (HWY_AVX3 - 1);  // and what extends it
  return __builtin_cpu_supports("avx512vnni") && (hwy::SupportedTargets() & kAvx512) != 0;
#else
  return false;
#endif
}

bool HasAmx() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool has = [] {
    unsigned eax, ebx, ecx, edx;
    constexpr unsigned kNeeded = 1u << 22 | 1u << 24 | 1u << 25;  // CPUID 7.0, EDX: AMX-BF16, -TILE, -INT8
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    if ((edx & kNeeded) != kNeeded) return false;
    // The tiles' 8 KiB of state must be asked for: Linux 5.16 and later, Documentation/arch/x86/xstate.rst. A
    // sandbox or an older system says no.
    constexpr int kArchReqXcompPerm = 0x1023, kXfeatureXtiledata = 18;
    if (syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) != 0) return false;
    return HasInt8Dot();
  }();
  return has;
#else
  return false;
#endif
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
