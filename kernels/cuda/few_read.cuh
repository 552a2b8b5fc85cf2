// What few_read.cu and few_fold.cu share.
#pragma once

#include "kernels/cuda/paged_read.cuh"

namespace sessa::cuda {

// Folds what the tiles of both reads left in scratch into their results.
void FoldTiles(cudaStream_t stream, const FewReads& reads);

// The exponents of int8 state, for kGroups groups of a tile's columns from first_group on, as far as there
// are any, and its first num_tokens tokens: 16 of these are a copy, by the first threads. vector_of(j): the
// tile's j-th vector.
template <int kGroups, class VectorOf>
__device__ __forceinline__ void CopyExponents(const PagedVectors& from, int first_group, int num_tokens,
                                              Int8 (*to)[kTile], const VectorOf& vector_of) {
  constexpr int kRun = 16, kRuns = kTile / kRun;
  const int i = threadIdx.x / kRuns, j = threadIdx.x % kRuns * kRun, group = first_group + i;
  if (i < kGroups && j < num_tokens && group < StateGroups(from.dim))
    CopyAsync(&to[i][j], vector_of(j) + ToExponent(from, j, group * kStateGroup), true);
}

}  // namespace sessa::cuda
