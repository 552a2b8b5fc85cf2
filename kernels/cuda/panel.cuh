// What the kernels of panels share.
#pragma once

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/paged_read.cuh"
#include "kernels/cuda/panel.h"
#include "kernels/cuda/wgmma.h"

namespace sessa::cuda {

__device__ inline int NumQueries(const PanelBlock& block) { return block.num_rows * block.num_heads; }
__device__ inline int PaddedQueries(const PanelBlock& block) {
  return RoundUp(NumQueries(block), kPanelQueries);
}

// The last block whose `first` is not behind `at`.
template <class T>
__device__ int PanelBlockOf(const PanelBlock* blocks, int num_blocks, T PanelBlock::*first, int64_t at) {
  int begin = 0, end = num_blocks;
  while (end - begin > 1) {
    const int middle = (begin + end) / 2;
    (blocks[middle].*first <= at ? begin : end) = middle;
  }
  return begin;
}

// What a tile's weights are multiplied by when its maximum becomes `max`: a power of two, or 0.
__device__ __forceinline__ float Shrink(float tile_max, float max) {
  return tile_max == -INFINITY ? 0.0f : exp2f(tile_max - max);
}

// The fragments of A of 16 rows and kPanelDepth columns of weights, from an operand of 128-byte rows, the
// rows g and g + 8 multiplied by powers of two (both halves of the words).
__device__ __forceinline__ void LoadWeights(unsigned (&a)[kPanelDepth / 16][4], const Bf16* operand,
                                            int first_row, const unsigned (&powers)[2]) {
  const int lane = threadIdx.x % kWarpLanes;
#pragma unroll
  for (int k = 0; k < kPanelDepth / 16; ++k) {
    LoadMatrices(a[k], operand + SwizzledOffset<128>(first_row + lane % 16, k * 16 + lane / 16 * 8));
#pragma unroll
    for (int i = 0; i < 4; ++i) a[k][i] = MultiplyPairs(a[k][i], powers[i % 2]);
  }
}
__device__ __forceinline__ unsigned BothHalves(float power) { return PackBf16(power, power); }

}  // namespace sessa::cuda
