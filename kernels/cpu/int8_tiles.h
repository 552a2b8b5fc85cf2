// Linear layers of int8 weights on a tile unit (tiles.h), with the bits of int8_linear.h: a group of 64
// weights is as deep as a tile of bytes. The 16-bit integers that activations become are split in a signed
// high and an unsigned low byte; the unit sums the products of each exactly in int32 (tdpbssd, tdpbusd), and
// the vector unit joins the groups' sums, 256 high + low, as it does without a tile unit.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/int8_linear.h"
#include "kernels/cpu/tiles.h"

namespace sessa::cpu {

// A single row goes by the vector unit beside the processor's tile unit, which would sleep between such rows
// (tiles.cc).
constexpr bool OnVectorUnit(MatrixUnit unit, int rows) { return unit == MatrixUnit::kAmx && rows == 1; }

// Rows of A [m, k] (row stride lda) as tiles: [TilesOf(m)][groups] of the high bytes [16][64], the low ones,
// and the rows' scales, floats [16]. Rows behind the last stay as they are. A row for the vector unit is as
// QuantizeRows leaves it, which takes less.
inline constexpr int kInt8TileBytes = 2 * kTileRows * kScaleGroup + kTileRows * 4;
constexpr int64_t Int8TiledSize(int m, int k) {  // bytes
  return int64_t{TilesOf(m)} * ScaleGroups(k) * kInt8TileBytes;
}
void QuantizeTiles(MatrixUnit unit, const float* a, int64_t lda, int m, int k, int tile, uint8_t* packed);

// C [m, n] becomes what the epilogue makes of A W^T + bias (or null) and of what it holds. a: as
// QuantizeTiles leaves it, from a tile's first row on; `packed_rows`: that were packed, of which these m may
// be a part. w: QuantizePanel's with kTileQuad. Requires kAmxModel, or kAmx and HasAmx().
inline constexpr int kTileQuad = 4;
void Int8TileLinear(MatrixUnit unit, const uint8_t* a, int packed_rows, int m, const Int8Panels& w,
                    const float* bias, Epilogue epilogue, float* c, int64_t ldc);

// silu(A gate^T + bias) * (A up^T + bias), with the bits of Int8TileLinear twice, of which the second's
// epilogue is kSiluGate. a: of more rows than one.
void Int8TileGated(MatrixUnit unit, const uint8_t* a, int m, const Int8Panels& gate, const Int8Panels& up,
                   const float* gate_bias, const float* up_bias, float* c, int64_t ldc);

}  // namespace sessa::cpu
