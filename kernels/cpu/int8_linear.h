// Linear layers of int8 weights on CPUs without dot products of bytes (int8_tiles.h has the others'):
// groups of 64 along k, each with a bf16 scale for every output, as on CUDA (kernels/quantize.h). The
// activations of a group become 16-bit integers with a float scale of their own (the group's largest
// magnitude / 32767, rounding error at most half of that: 1.5e-5 of the largest), so that a group's sum is
// exact in int32 and the instruction for pairs of 16-bit products (AVX2, AVX-512: vpmaddwd) does twice the
// work of a float FMA. The groups' sums are joined in float, one FMA chain over the groups: every batch
// and thread count gives the same bits, and so does every instruction set that has FMA.
#pragma once

#include <cstdint>

#include "kernels/cpu/simd.h"
#include "kernels/quantize.h"

namespace sessa::cpu {

// Words of a group of activations: a pair of int16 each, and the scale, a float.
inline constexpr int kGroupWords = kScaleGroup / 2 + 1;

// Rows of A [m, k] (row stride lda) as groups of integers: [NumRowTiles(m)][groups][kGroupWords][rows of the
// tallest tile]. A group that holds a NaN or an infinity gets the scale NaN, and so do the outputs; what is
// below 1e-30 counts as 0.
constexpr int TileHeight(int m) { return (m + NumRowTiles(m) - 1) / NumRowTiles(m); }
constexpr int64_t QuantizedSize(int m, int k) {  // words
  return static_cast<int64_t>(NumRowTiles(m)) * TileHeight(m) * ScaleGroups(k) * kGroupWords;
}
void QuantizeRows(const float* a, int64_t lda, int m, int k, int tile, uint32_t* packed);

// Weights [n, k]: panels [ceil(n / 16)][groups][32 pairs of k][16][2], zero padded, and scales [ceil(n /
// 16)][groups][16].
struct Int8Panels {
  const int8_t* data;
  const uint16_t* scales;  // bf16
  int n, k;
};
constexpr int64_t Int8PanelScales(int k) { return static_cast<int64_t>(ScaleGroups(k)) * kPanel; }
constexpr int64_t Int8PanelSize(int k) { return Int8PanelScales(k) * kScaleGroup; }  // bytes
// Quantises the rows of a panel (num_rows of k floats, ldr apart), symmetric, to nearest; its scales are
// rounded to bf16 first.
void QuantizePanel(const float* rows, int64_t ldr, int num_rows, int k, int8_t* panel, uint16_t* scales);

// C[:, 16 p .. 16 p + 16) = A W^T + bias for the panels p in [first, last). scratch: Int8Scratch() floats. c
// has columns for n outputs only.
constexpr int64_t Int8Scratch() { return 2 * kRowTile * kPanel; }
void Int8LinearPanels(const uint32_t* packed, int m, const Int8Panels& w, const float* bias, int first,
                      int last, float* c, int64_t ldc, float* scratch);

const char* Int8TargetName();  // of the instruction set in use

}  // namespace sessa::cpu
