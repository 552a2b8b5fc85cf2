// Linear layers of int8 weights on a tile unit (tiles.h): integers up to 127 are exact in bf16, so panels
// become tiles of bf16 in the cache, a few steps of k at a time, beside the unit's work on the steps before,
// and activations are as with bf16 weights, one bf16 term or three. A group of 64 weights is two steps: the
// unit sums their products from 0, in its order, and the vector unit adds the sum times the group's scale to
// the output's, in one chain of fused multiply-adds from the bias on. Denormals are zero all the way.
//
// Products with the bytes of 16-bit activations (tdpbssd) need as many instructions as this and leave two sums
// to be joined for one; prompts took 1.5 times as long as with bf16 weights, this way 1.2 to 1.4 times.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/int8_linear.h"
#include "kernels/cpu/tiles.h"

namespace sessa::cpu {

// QuantizePanel's `together`: rows of k follow one another.
inline constexpr int kTileRow = 1;

// As TileLinear.
void Int8TileLinear(MatrixUnit unit, const uint16_t* a, int left_tile, int m, int terms, const Int8Panels& w,
                    const float* bias, Epilogue epilogue, float* c, int64_t ldc);

// As TileGated.
void Int8TileGated(MatrixUnit unit, const uint16_t* a, int m, int terms, const Int8Panels& gate,
                   const Int8Panels& up, const float* gate_bias, const float* up_bias, const TileOutput& out);

}  // namespace sessa::cpu
