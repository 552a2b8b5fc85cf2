// How the kernels on the tensor cores hold matrices: products of bf16 as fragments of mma.h, a warp 16 rows.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.h"

namespace sessa::cuda {

inline constexpr int kChunk = 8;  // elements of bf16 of a 16-byte copy
inline constexpr int kWarpRows = 16;

// acc += A B over kDepth values of k, for kTiles fragments of 8 columns. a: the warp's 16 rows, k across.
// load_b(y, k, n): the fragments of 16 k from k on and of the 16 columns from n on, the first 8 columns' in
// y[0], y[1].
template <int kDepth, int kTiles, int kStride, class LoadB>
__device__ __forceinline__ void MultiplyTiles(float (&acc)[kTiles][4], const Bf16 (*a)[kStride],
                                              const LoadB& load_b) {
  const int lane = threadIdx.x % kWarpLanes;
#pragma unroll 2  // more would cost registers that the callers have not
  for (int k = 0; k < kDepth; k += 16) {
    unsigned x[4];
    LoadMatrices(x, &a[lane % 16][k + lane / 16 * 8]);
#pragma unroll
    for (int j = 0; j < kTiles; j += 2) {
      unsigned y[4];
      load_b(y, k, j * 8);
      MultiplyBf16(acc[j], x, y[0], y[1]);
      MultiplyBf16(acc[j + 1], x, y[2], y[3]);
    }
  }
}

// Of element e of a fragment: its row and column in the warp's tile.
__device__ __forceinline__ int FragmentRow(int e) { return threadIdx.x % kWarpLanes / 4 + e / 2 * 8; }
__device__ __forceinline__ int FragmentColumn(int tile, int e) {
  return tile * 8 + threadIdx.x % 4 * 2 + e % 2;
}

// Over the 4 lanes that hold a row of a fragment; each gets the result.
__device__ __forceinline__ float RowMax(float x) {
  for (int mask = 1; mask < 4; mask *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, mask));
  return x;
}
__device__ __forceinline__ float RowSum(float x) {
  for (int mask = 1; mask < 4; mask *= 2) x += __shfl_xor_sync(0xffffffffu, x, mask);
  return x;
}

}  // namespace sessa::cuda
