// Linear layers of bf16 weights on a tile unit: Intel's AMX (2023 and later), 16 times the rate of AVX-512's
// float FMA, or a model of its instructions in plain C++, which gives the same bits and serves the tests of
// processors without it.
//
// A tile is 16 rows of 64 bytes. The left side's rows become tiles of 16 rows x 32 bf16; the weights' panels
// (simd.h) are tiles already: 16 pairs of k by 16 columns. tdpbf16ps adds the 32 products of a row and a
// column to a float32 sum: one chain of fused multiply-adds over the even k and one over the odd k, both from
// 0, then the sum of the two to the element; to nearest even, denormals are zero (Intel SDM, volume 2,
// TDPBF16PS). A row's result does not depend on the other rows of its tile, and every number of rows goes
// this way: so the exactness of simd.h holds.
//
// Activations are rounded to one bf16 term (--activation_dtype bf16), or are a sum of three, which is as
// exact as float32 is, and whose products with a tile of weights follow one another into the same sum:
// float32 activations at a third of the rate. (Two terms err by 2^-17 of a value: cached states of the
// published models differed by up to 1.3e-5 of the largest.)
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/simd.h"

namespace sessa::cpu {

// Whether this processor has AMX with bf16 and int8 and the system lets this process use it (asks for it,
// once).
bool HasAmx();
bool HasInt8Dot();  // AVX-512's dot products of bytes (VNNI), which AMX's single rows of int8 weights need
                    // too

inline constexpr int kTileRows = 16, kTileDepth = 32;  // of the left side's tiles; values along k
inline constexpr int kTileValues = kTileRows * kTileDepth;
constexpr int TilesOf(int m) { return CeilDiv(m, kTileRows); }
constexpr int TileSteps(int k) { return CeilDiv(k, kTileDepth); }

constexpr int TileTerms(bool bf16_activations) { return bf16_activations ? 1 : 3; }
inline constexpr int kTileSums = kTileRows * kPanel;  // of a tile of C

// Values between two tiles of A. A single row's lie one after the other, 64 bytes each: other threads fetch
// them from the one that packed them, and lines a KiB apart, which none looks ahead for, took them 1.5 µs.
constexpr int TileStride(int m) { return m == 1 ? kTileDepth : kTileValues; }

// Rows of A [m, k] as tiles, [TilesOf(m)][TileSteps(k)][terms][16][32] bf16 in that stride, zero padded along
// k. Rows behind the last stay as they are: what becomes of them is not stored.
constexpr int64_t TiledSize(int m, int k, int terms) {
  return static_cast<int64_t>(TilesOf(m)) * TileSteps(k) * terms * kTileValues;
}
void PackTiles(const float* a, int64_t lda, int m, int k, int terms, int tile, uint16_t* packed);

// Panels of weights as in simd.h, but of as many rows as whole tiles have, zero padded.
constexpr int TilePanelRows(int k) { return RoundUp(k, kTileDepth); }

// Rows of A that a caller passes at once, a multiple of a pair of tiles: 1 MiB of them stays in the
// second-level cache (2 MiB where there is AMX) while all weights go by; the third level was seen to give a
// core 12 GB/s.
constexpr int TileRowsAtOnce(int k, int bytes) {  // of a value, in all its terms
  return 2 * kTileRows * std::max(1, (1 << 20) / (2 * kTileRows * TileSteps(k) * kTileDepth * bytes));
}

// C [m, n] becomes what the epilogue makes of A W^T + bias (or null) and of what it holds (kSiluGate: the
// second product). a: as PackTiles leaves it, tiles `left_tile` values apart (TileStride of the rows that
// were packed, of which these m may be a part), `w` is of bf16 in TilePanelRows. Requires kAmxModel, or kAmx
// and HasAmx().
void TileLinear(MatrixUnit unit, const uint16_t* a, int left_tile, int m, int terms, const Panels& w,
                const float* bias, Epilogue epilogue, float* c, int64_t ldc);

// Where the products of a gated linear go: rows of c; or, instead, the left side of another linear, as
// PackTiles leaves it for one term, of n outputs in `steps` steps. (Written as floats and packed again they
// left the second-level cache, and took as long as the products.)
struct TileOutput {
  float* c = nullptr;
  int64_t ldc = 0;
  uint16_t* tiles = nullptr;
  int steps = 0;
};

// silu(A gate^T + bias) * (A up^T + bias), with the bits of TileLinear twice, of which the second's epilogue
// is kSiluGate. a: of more rows than one. Requires, of tiles, n to be a multiple of kTileDepth.
void TileGated(MatrixUnit unit, const uint16_t* a, int m, int terms, const Panels& gate, const Panels& up,
               const float* gate_bias, const float* up_bias, const TileOutput& out);

}  // namespace sessa::cpu
