// Linear layers whose bf16 weights meet activations rounded to bf16 (to nearest even), in the dot-product instruction of
// AVX-512 BF16: two products and a float32 sum at the rate of one float32 FMA, without unpacking. As in simd.h each output is
// one chain over k (here over pairs), so a row's bits do not depend on its batch.
//
// Only on AMD's cores (Zen 4: twice the rate of the FMA kernel); elsewhere the instruction was seen to run at half the
// FMA rate (Intel, before AMX), and unpacking to float32 wins.
#pragma once

#include <cstdint>

#include "kernels/cpu/simd.h"

namespace sessa::cpu {

bool HasBf16Dot();  // the other functions may be called only then

// Rows of A [m, k] (row stride lda) as pairs of bf16 along k, in NumRowTiles(m) tiles; PackedPairs(m, k) words in all.
int64_t PackedPairs(int m, int k);
void PackPairs(const float* a, int64_t lda, int m, int k, int tile, uint32_t* packed);

// C[:, 16 p .. 16 p + 16) = A W^T + bias for the panels p in [first, last) of bf16 weights as simd.h stores them. c [m][ldc] has columns for n outputs only.
void DotPanels(const uint32_t* packed, int m, const uint16_t* weight, int n, int k, const float* bias, int first, int last,
               float* c, int64_t ldc);

}  // namespace sessa::cpu
