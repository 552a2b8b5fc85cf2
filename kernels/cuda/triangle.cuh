// The inverse of a unit lower triangle I - B of 64 rows in float32, by a block of kThreads threads: the four
// 16 x 16 triangles of its diagonal by forward substitution, a thread for each column, then merged twice,
//   (I - B)^-1 = [X1, 0; X2 B21 X1, X2]   with X1, X2 the inverses of the halves.
// The longest chain of dependent multiply-adds is 120 + 2 (16 + 32), where substitution over 64 rows has
// 2016. With |row sums of B| < 1 no entry of the inverse is beyond [-1, 1] (docs/architecture.md, "The
// model"), so nothing is lost by forming it: the error is at most 1e-6 (tests/cuda/triangle_test.cc).
#pragma once

#include "kernels/cuda/device.cuh"

namespace sessa::cuda {

inline constexpr int kTriangleRows = 64;
// Rows of 16-byte loads, eight neighbours of which lie in different banks.
inline constexpr int kTriangleStride = kTriangleRows + 4;
using TriangleMatrix = float[kTriangleRows][kTriangleStride];
inline constexpr int kMergeRows = kTriangleRows / 2;
using MergeScratch = float[kMergeRows][kMergeRows + 1];

// Joins the inverses of neighbouring triangles of kSize rows.
template <int kSize>
__device__ void MergeTriangles(const TriangleMatrix& b, TriangleMatrix& x, MergeScratch& t) {
  constexpr int kOutputs = kTriangleRows / 2 * kSize;
  // Output i: of pair i / kSize^2, whose lower rows begin at `low` and left columns at `left`.
  const auto each = [](const auto& body) {
    for (int i = threadIdx.x; i < kOutputs; i += kThreads) {
      const int pair = i / (kSize * kSize), r = i / kSize % kSize, c = i % kSize;
      body(pair * kSize, pair * 2 * kSize + kSize, pair * 2 * kSize, r, c);
    }
  };
  each([&](int at, int low, int left, int r, int c) {
    float sum = 0;
#pragma unroll 16
    for (int k = 0; k < kSize; ++k) sum = fmaf(b[low + r][left + k], x[left + k][left + c], sum);
    t[at + r][c] = sum;
  });
  __syncthreads();
  each([&](int at, int low, int left, int r, int c) {
    float sum = 0;
#pragma unroll 16
    for (int k = 0; k < kSize; ++k) sum = fmaf(x[low + r][low + k], t[at + k][c], sum);
    x[low + r][left + c] = sum;
  });
  __syncthreads();
}

// x = (I - B)^-1, zeros above the diagonal. b: B, of which what is not below the diagonal is not read. All
// threads call it, b is there for all of them, and when it returns so is x.
__device__ inline void InvertTriangle(const TriangleMatrix& b, TriangleMatrix& x, MergeScratch& t) {
  constexpr int kBlock = 16;
  for (int i = threadIdx.x; i < kTriangleRows * kTriangleRows; i += kThreads) {
    const int r = i / kTriangleRows, c = i % kTriangleRows;
    if (r / kBlock != c / kBlock) x[r][c] = 0;
  }
  if (threadIdx.x < kTriangleRows) {
    const int column = threadIdx.x, first = column / kBlock * kBlock;
    float y[kBlock];
#pragma unroll
    for (int r = 0; r < kBlock; ++r) {
      y[r] = first + r == column ? 1.0f : 0.0f;
#pragma unroll
      for (int k = 0; k < r; ++k) y[r] = fmaf(b[first + r][first + k], y[k], y[r]);
      x[first + r][column] = y[r];
    }
  }
  __syncthreads();
  MergeTriangles<16>(b, x, t);
  MergeTriangles<32>(b, x, t);
}

}  // namespace sessa::cuda
