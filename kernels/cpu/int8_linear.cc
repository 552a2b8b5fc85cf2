#include "kernels/cpu/int8_linear.h"

#include <algorithm>
#include <bit>

#include "kernels/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/int8_linear.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/int8-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

inline constexpr int kPairs = kScaleGroup / 2;

// One group of k for kRows rows and kPanels panels: integer sums in registers, then scaled and joined to c.
// x: of the group. Few rows of one panel have four sums for each output (integers: the order is free), to
// hide the latency of the multiplier.
template <int kRows, int kPanels>
HWY_INLINE void GroupMicro(const uint32_t* x, int height, const int8_t* w, int64_t panel,
                           const uint16_t* scales, int64_t panel_scales, bool first, float* c) {
  constexpr int kV = kPanels * kVectors, kSplit = kPanels == 1 && kRows <= kFewRows ? 4 : 1;
  VI acc[kRows][kV][kSplit];
  SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      SESSA_UNROLL
      for (int j = 0; j < kSplit; ++j) acc[r][v][j] = hn::Zero(kI32);
    }
  }
  const uint32_t* word = x;
  for (int i = 0; i < kPairs; i += kSplit) {
    SESSA_UNROLL
    for (int j = 0; j < kSplit; ++j, word += height, w += 2 * kPanel) {
      VI y[kV];
      SESSA_UNROLL
      for (int v = 0; v < kV; ++v)
        y[v] = LoadPairs(w + v / kVectors * panel + v % kVectors * 2 * static_cast<int>(kLanes));
      SESSA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const VI pair = hn::Set(kI32, static_cast<int32_t>(word[r]));
        SESSA_UNROLL
        for (int v = 0; v < kV; ++v) acc[r][v][j] = AddPairs(acc[r][v][j], pair, y[v]);
      }
    }
  }
  VF scale[kV];
  SESSA_UNROLL
  for (int v = 0; v < kV; ++v) {
    const auto* s = reinterpret_cast<const hwy::bfloat16_t*>(scales + v / kVectors * panel_scales);
    scale[v] = hn::PromoteTo(kF, hn::LoadU(kB, s + v % kVectors * kLanes));
  }
  SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const VF row_scale = hn::Set(kF, std::bit_cast<float>(word[r]));
    SESSA_UNROLL
    for (int v = 0; v < kV; ++v) {
      VI sum = acc[r][v][0];
      SESSA_UNROLL
      for (int j = 1; j < kSplit; ++j) sum = sum + acc[r][v][j];
      float* out = c + (r * kV + v) * kLanes;
      const VF before = first ? hn::Zero(kF) : hn::LoadU(kF, out);
      hn::StoreU(hn::MulAdd(hn::ConvertTo(kF, sum) * row_scale, scale[v], before), kF, out);
    }
  }
}

template <int kRows, int kPanels>
HWY_INLINE void GroupMicroOf(int rows, const uint32_t* x, int height, const int8_t* w, int64_t panel,
                             const uint16_t* scales, int64_t panel_scales, bool first, float* c) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return GroupMicro<kRows, kPanels>(x, height, w, panel, scales, panel_scales, first, c);
    GroupMicroOf<kRows - 1, kPanels>(rows, x, height, w, panel, scales, panel_scales, first, c);
  }
}

// The rows of a tile, all of k, kPanels panels; c [rows][16 * kPanels]. Meanwhile [ahead, ahead_end) comes
// closer.
template <int kPanels>
HWY_NOINLINE void Tile(const uint32_t* x, int rows, int height, const Int8Panels& w, int p,
                       const int8_t* ahead, const int8_t* ahead_end, float* c) {
  constexpr int kMax = kMaxRows<kPanels>;
  const int groups = ScaleGroups(w.k), parts = CeilDiv(rows, kMax);
  const int64_t panel = Int8PanelSize(w.k), panel_scales = Int8PanelScales(w.k);
  const int64_t share = ((ahead_end - ahead) / groups + 63) / 64 * 64;
  for (int g = 0; g < groups; ++g) {
    for (const int8_t* end = std::min(ahead + share, ahead_end); ahead < end; ahead += 64)
      __builtin_prefetch(ahead);
    const int8_t* weights = w.data + p * panel + static_cast<int64_t>(g) * kScaleGroup * kPanel;
    const uint16_t* scales = w.scales + p * panel_scales + static_cast<int64_t>(g) * kPanel;
    for (int t = 0; t < parts; ++t) {
      const int r = rows * t / parts;
      GroupMicroOf<kMax, kPanels>(rows * (t + 1) / parts - r,
                                  x + static_cast<int64_t>(g) * kGroupWords * height + r, height, weights,
                                  panel, scales, panel_scales, g == 0, c + r * kPanels * kPanel);
    }
  }
}

void Int8LinearPanels(const uint32_t* packed, int m, const Int8Panels& w, const float* bias, int first,
                      int last, float* c, int64_t ldc, float* scratch) {
  const int tiles = NumRowTiles(m), height = TileHeight(m);
  const int64_t panel = Int8PanelSize(w.k),
                tile_words = static_cast<int64_t>(ScaleGroups(w.k)) * kGroupWords * height;
  for (int p = first, now; p < last; p += now) {
    // Few rows wait for memory, which is read fastest in one stream. For more, the panels after these come
    // closer, a share with each tile: memory works while the multipliers do.
    now = m > kFewRows && last - p >= 2 && kLanes == 16 ? 2 : 1;
    const int8_t* ahead = w.data + (p + now) * panel;
    const int64_t ahead_bytes = m > kFewRows ? std::min(now, last - p - now) * panel : 0;
    for (int t = 0; t < tiles; ++t) {
      const int r = FirstRowOfTile(t, m), rows = FirstRowOfTile(t + 1, m) - r;
      const uint32_t* x = packed + t * tile_words;
      const int8_t *begin = ahead + ahead_bytes * t / tiles / 64 * 64,
                   *end = ahead + ahead_bytes * (t + 1) / tiles / 64 * 64;
      now == 2 ? Tile<2>(x, rows, height, w, p, begin, end, scratch)
               : Tile<1>(x, rows, height, w, p, begin, end, scratch);
      StoreOutputs(scratch, now * kPanel, rows, std::min(w.n - p * kPanel, now * kPanel),
                   bias == nullptr ? nullptr : bias + p * kPanel, c + r * ldc + p * kPanel, ldc);
    }
  }
}

void QuantizeRows(const float* a, int64_t lda, int m, int k, int tile, uint32_t* packed) {
  const int height = TileHeight(m), groups = ScaleGroups(k), first = FirstRowOfTile(tile, m);
  const int rows = FirstRowOfTile(tile + 1, m) - first;
  packed += static_cast<int64_t>(tile) * groups * kGroupWords * height;
  for (int g = 0; g < groups; ++g, packed += kGroupWords * height) {
    for (int r = 0; r < rows; ++r) {
      alignas(64) int32_t q[kScaleGroup];
      const float scale = QuantizeValues(a + (first + r) * lda + g * kScaleGroup, k - g * kScaleGroup, q);
      for (int i = 0; i < kPairs; ++i)
        packed[i * height + r] = (q[2 * i] & 0xffff) | static_cast<uint32_t>(q[2 * i + 1]) << 16;
      packed[kPairs * height + r] = std::bit_cast<uint32_t>(scale);
    }
  }
}

const char* Int8TargetName() { return hwy::TargetName(HWY_TARGET); }

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(QuantizeRows);
HWY_EXPORT(Int8LinearPanels);
HWY_EXPORT(Int8TargetName);

void QuantizePanel(const float* rows, int64_t ldr, int num_rows, int k, int8_t* panel, uint16_t* scales) {
  for (int begin = 0; begin < k; begin += kScaleGroup, scales += kPanel, panel += kScaleGroup * kPanel) {
    const int count = std::min(k - begin, kScaleGroup);
    for (int j = 0; j < num_rows; ++j) {
      int8_t q[kScaleGroup];
      scales[j] = QuantizeGroup(rows + j * ldr + begin, count, q);
      for (int i = 0; i < count; ++i) panel[(i / 2 * kPanel + j) * 2 + i % 2] = q[i];
    }
  }
}

void QuantizeRows(const float* a, int64_t lda, int m, int k, int tile, uint32_t* packed) {
  HWY_DYNAMIC_DISPATCH(QuantizeRows)(a, lda, m, k, tile, packed);
}
void Int8LinearPanels(const uint32_t* packed, int m, const Int8Panels& w, const float* bias, int first,
                      int last, float* c, int64_t ldc, float* scratch) {
  HWY_DYNAMIC_DISPATCH(Int8LinearPanels)(packed, m, w, bias, first, last, c, ldc, scratch);
}
const char* Int8TargetName() { return HWY_DYNAMIC_DISPATCH(Int8TargetName)(); }

}  // namespace sessa::cpu
#endif  // HWY_ONCE
