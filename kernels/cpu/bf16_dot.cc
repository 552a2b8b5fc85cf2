// Linear layers with the bf16 dot product of AVX-512. Compiled for that instruction set alone; HasBf16Dot guards each call.
#include "kernels/cpu/bf16_dot.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>

namespace sessa::cpu {
namespace {

// Rows of a tile lie next to each other: [tiles][pairs of k][rows of the tallest tile].
int TileHeight(int m) { return (m + NumRowTiles(m) - 1) / NumRowTiles(m); }

// kRows x kPanels panels in registers: at most 12 x 2 = 24 accumulators, 2 of B, 1 pair of A. Each accumulator is one chain
// over the pairs of k. Meanwhile the cache lines [ahead, ahead_end) come closer, one with each pair, so that memory works while the
// multipliers do.
template <int kRows, int kPanels>
void Micro(const uint32_t* a, int height, int pairs, const uint16_t* b, int64_t panel, const uint16_t* ahead,
           const uint16_t* ahead_end, const float* bias, int columns, float* c, int64_t ldc) {
  const int lines = static_cast<int>((ahead_end - ahead) / (2 * kPanel) + pairs - 1) / pairs;
  __m512 acc[kRows][kPanels];
SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
SESSA_UNROLL
    for (int p = 0; p < kPanels; ++p) acc[r][p] = _mm512_setzero_ps();
  }
  for (int i = 0; i < pairs; ++i) {
    __m512i y[kPanels];
SESSA_UNROLL
    for (int p = 0; p < kPanels; ++p) y[p] = _mm512_loadu_si512(b + p * panel + i * 2 * kPanel);
    for (int n = 0; n < lines && ahead < ahead_end; ++n, ahead += 2 * kPanel) __builtin_prefetch(ahead);
SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m512i x = _mm512_set1_epi32(static_cast<int>(a[i * height + r]));
SESSA_UNROLL
      for (int p = 0; p < kPanels; ++p) acc[r][p] = _mm512_dpbf16_ps(acc[r][p], (__m512bh)x, (__m512bh)y[p]);
    }
  }
SESSA_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    const int left = std::clamp(columns - p * kPanel, 0, kPanel);
    const __mmask16 mask = static_cast<__mmask16>((1u << left) - 1);
    const __m512 shift = bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, bias + p * kPanel);
SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) _mm512_mask_storeu_ps(c + r * ldc + p * kPanel, mask, _mm512_add_ps(acc[r][p], shift));
  }
}

template <int kRows, int kPanels>
void MicroOf(int rows, const uint32_t* a, int height, int pairs, const uint16_t* b, int64_t panel, const uint16_t* ahead,
             const uint16_t* ahead_end, const float* bias, int columns, float* c, int64_t ldc) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return Micro<kRows, kPanels>(a, height, pairs, b, panel, ahead, ahead_end, bias, columns, c, ldc);
    MicroOf<kRows - 1, kPanels>(rows, a, height, pairs, b, panel, ahead, ahead_end, bias, columns, c, ldc);
  }
}

}  // namespace

bool HasBf16Dot() { return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl"); }

int64_t PackedPairs(int m, int k) { return static_cast<int64_t>(NumRowTiles(m)) * TileHeight(m) * ((k + 1) / 2); }

void PackPairs(const float* a, int64_t lda, int m, int k, int tile, uint32_t* packed) {
  const int height = TileHeight(m), pairs = (k + 1) / 2, first = FirstRowOfTile(tile, m);
  packed += static_cast<int64_t>(tile) * pairs * height;
  for (int r = 0; r < FirstRowOfTile(tile + 1, m) - first; ++r) {
    const float* row = a + (first + r) * lda;
    for (int i = 0; i < k; i += 32) {
      const auto part = [&](int begin) {
        const int left = std::clamp(k - begin, 0, 16);
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << left) - 1), row + begin);
      };
      alignas(64) uint32_t rounded[16];
      _mm512_store_si512(rounded, (__m512i)_mm512_cvtne2ps_pbh(part(i + 16), part(i)));
      for (int j = 0; j < 16 && i / 2 + j < pairs; ++j) packed[(i / 2 + j) * height + r] = rounded[j];
    }
  }
}

void DotPanels(const uint32_t* packed, int m, const uint16_t* weight, int n, int k, const float* bias, int first, int last,
               float* c, int64_t ldc) {
  const int pairs = (k + 1) / 2, height = TileHeight(m), tiles = NumRowTiles(m);
  const int64_t panel = static_cast<int64_t>(pairs) * 2 * kPanel;
  for (int p = first, now; p < last; p += now) {
    const int left = last - p;
    now = m <= kFewRows && left >= 4 ? 4 : left >= 2 ? 2 : 1;
    const uint16_t* b = weight + p * panel;
    const float* shift = bias == nullptr ? nullptr : bias + p * kPanel;
    const int columns = n - p * kPanel;
    const uint16_t* next = b + now * panel;
    const int64_t next_lines = std::min(now, left - now) * static_cast<int64_t>(pairs);
    for (int t = 0; t < tiles; ++t) {
      const int r = FirstRowOfTile(t, m), rows = FirstRowOfTile(t + 1, m) - r;
      const uint32_t* a = packed + static_cast<int64_t>(t) * pairs * height;
      float* y = c + r * ldc + p * kPanel;
      const uint16_t *ahead = next + next_lines * t / tiles * 2 * kPanel, *end = next + next_lines * (t + 1) / tiles * 2 * kPanel;
      if (now == 4) MicroOf<kFewRows, 4>(rows, a, height, pairs, b, panel, next, next, shift, columns, y, ldc);
      if (now == 2) MicroOf<kRowTile, 2>(rows, a, height, pairs, b, panel, ahead, end, shift, columns, y, ldc);
      if (now == 1) MicroOf<kRowTile, 1>(rows, a, height, pairs, b, panel, ahead, end, shift, columns, y, ldc);
    }
  }
}

}  // namespace sessa::cpu
#else
#include <cstdlib>

namespace sessa::cpu {
bool HasBf16Dot() { return false; }
int64_t PackedPairs(int, int) { std::abort(); }
void PackPairs(const float*, int64_t, int, int, int, uint32_t*) { std::abort(); }
void DotPanels(const uint32_t*, int, const uint16_t*, int, int, const float*, int, int, float*, int64_t) { std::abort(); }
}  // namespace sessa::cpu
#endif
