// Linear layers of int8 weights on a tile unit (tiles.h), by its products of bytes: 64 of a row and a
// column at a time (Intel SDM, volume 2, TDPBSSD), twice the rate of bf16's; or on the vector unit
// (AVX-512 VNNI, VPDPBUSD). Sums are integers and exact in any order, so all kernels have the same bits.
//
// An output has one scale, and so has a row of activations: nothing but integers is summed along k. (With a
// scale for each group of 64, joining the groups' sums took as long as two of their products.) What that
// would cost in accuracy a rotation gives back: blocks of 64 along k, of activations and of weights, are
// multiplied by a Hadamard matrix, which changes no product and spreads an outlier over its block (Ashkboos
// et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024).
//
// Activations become integers of 8 bits, the largest of a row 127; or of 16, the largest 32767, whose high
// and low bytes are the two terms of a sum, at half the rate and without an error to speak of.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/tiles.h"

namespace sessa::cpu {

inline constexpr int kInt8Depth = 64;        // bytes of a tile's row
inline constexpr int64_t kTileBytes = 1024;  // of 16 rows of the left side, or 16 quads of k by 16 columns
constexpr int Int8Steps(int k) { return CeilDiv(k, kInt8Depth); }
// 255 * 127 times as many are in the sum of low bytes, an int32.
inline constexpr int kMostInt8Depth = 1 << 16;

// Weights [n, k]: panels [ceil(n / 16)][Int8Steps(k)][16 quads of k][16][4], zero padded, of which an output
// is `scale` times what the integers sum to.
struct Int8TilePanels {
  const int8_t* data;
  const float* scales;  // [ceil(n / 16)][16]
  int n, k;
};
constexpr int64_t Int8TilePanelSize(int k) { return Int8Steps(k) * kTileBytes; }
// The rows of a panel (num_rows of k finite floats, ldr apart); rotated: Int8Rotated(k) floats.
void PackInt8Panel(const float* rows, int64_t ldr, int num_rows, int k, float* rotated, int8_t* panel,
                   float* scales);
constexpr int Int8Rotated(int k) { return RoundUp(k, kInt8Depth); }

// Activations: tiles [TilesOf(m)][Int8Steps(k)][terms][16][64], of a single row [Int8Steps(k)][terms][64];
// and a scale for each row, NaN for one that holds a NaN or an infinity.
struct Int8Left {
  const int8_t* tiles;
  const float* scales;
  int terms;   // 1: of 8 bits; 2: the high bytes of 16 bits, and the low ones, which have no sign
  int stride;  // bytes from one tile to the next: Int8TileStride of the rows that were packed
};
constexpr int Int8Terms(bool int8_activations) { return int8_activations ? 1 : 2; }
constexpr int Int8TileStride(int m) { return m == 1 ? kInt8Depth : static_cast<int>(kTileBytes); }
constexpr int64_t Int8TiledSize(int m, int k, int terms) {
  return TilesOf(m) * Int8Steps(k) * terms * kTileBytes;
}
// The rows of one tile of A [m, k]; rotated as above.
void PackInt8Tiles(const float* a, int64_t lda, int m, int k, int terms, int tile, float* rotated,
                   int8_t* tiles, float* scales);

// As TileLinear, also on MatrixUnit::kVector, which requires HasInt8Dot(). Requires k <=
// kMostInt8Depth.
void Int8TileLinear(MatrixUnit unit, const Int8Left& a, int m, const Int8TilePanels& w, const float* bias,
                    Epilogue epilogue, float* c, int64_t ldc);

// As TileGated, to rows of floats.
void Int8TileGated(MatrixUnit unit, const Int8Left& a, int m, const Int8TilePanels& gate,
                   const Int8TilePanels& up, const float* gate_bias, const float* up_bias, float* c,
                   int64_t ldc);

}  // namespace sessa::cpu
