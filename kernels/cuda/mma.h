// The tensor cores' warp-wide operations on bf16, as the PTX manual defines their fragments
// (mma.sync.m16n8k16, ldmatrix). All 32 lanes of a warp call together. Below g = lane / 4 and t = lane % 4.
// The tests' emulator has its own definitions (tests/cuda/emulated_mma.h), from the same tables of the
// manual, so that the index arithmetic of the kernels is exercised on a CPU. The operations of whole
// warpgroups, which are faster on Hopper, are in wgmma.h.
#pragma once

#include "kernels/cuda/runtime.h"

#if !defined(SESSA_CUDA_EMULATED) && defined(__CUDACC__)

namespace sessa::cuda {

// Four 8 x 8 matrices of 16-bit values from shared memory. Lane i names the 16 bytes of row i % 8 of matrix i
// / 8. Lane (g, t) gets of each matrix m in r[m] the values at row g, columns 2t (low half) and 2t + 1.
__device__ __forceinline__ void LoadMatrices(unsigned (&r)[4], const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}
// The same of the transposed matrices: the values at rows 2t and 2t + 1, column g.
__device__ __forceinline__ void LoadMatricesTransposed(unsigned (&r)[4], const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

// d += a b in float32: a [16, 16], b [16, 8], d [16, 8]. Each word of a and b holds two neighbours along k.
//   a[0]: row g, k 2t; a[1]: row g + 8, k 2t; a[2]: row g, k 2t + 8; a[3]: row g + 8, k 2t + 8
//   b0: k 2t, column g; b1: k 2t + 8, column g
//   d[0], d[1]: row g, columns 2t, 2t + 1; d[2], d[3]: row g + 8
__device__ __forceinline__ void MultiplyBf16(float (&d)[4], const unsigned (&a)[4], unsigned b0,
                                             unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Of both bf16 halves of the words, rounded to nearest even: exact where b is a power of two and nothing
// becomes smaller than bf16 can be.
__device__ __forceinline__ unsigned MultiplyPairs(unsigned a, unsigned b) {
  unsigned product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}

// Two values rounded to bf16, to nearest even: neighbours along k.
__device__ __forceinline__ unsigned PackBf16(float low, float high) {
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

}  // namespace sessa::cuda

#endif
