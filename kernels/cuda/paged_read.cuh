// What the kernels of paged reads share: which tokens a block of queries sees, where they are, and where
// results go.
#pragma once

#include "kernels/cuda/device.cuh"

namespace sessa::cuda {

// Geometry of a block of queries, the same on every thread.
struct Geometry {
  __device__ Geometry(const PagedRead& read, const ReadBlock& block)
      : num_queries(block.num_rows * block.num_heads),
        horizon(block.start + block.num_rows - (read.feedback ? 1 : 0)),
        own_tile(read.feedback ? block.start / kTile : -1) {}
  int num_queries;
  int horizon;   // tokens that the last row sees
  int own_tile;  // of a feedback block, else none
};

__device__ inline bool IsRead(const PagedRead& read, const Geometry& g, int tile) {
  return tile * kTile < g.horizon && tile % read.num_chains % read.num_ranks == read.rank;
}

template <class T>
__device__ T* VectorAt(const PagedVectors& v, const int32_t* pages, int head, int position) {
  const int64_t page = pages[position / v.page_size] - v.first_page;
  return static_cast<T*>(v.data) +
         ((page * v.num_heads + head) * v.page_size + position % v.page_size) * Padded(v.dim);
}

// The block that a work item belongs to: the last one whose first item is not behind it.
__device__ inline int BlockOf(const PagedRead& read, int item) {
  int begin = 0, end = read.num_blocks;
  while (end - begin > 1) {
    const int middle = (begin + end) / 2;
    (read.blocks[middle].first_item <= item ? begin : end) = middle;
  }
  return begin;
}

// Where a query's result goes, and its softmax.
__device__ inline void WriteForward(const PagedRead& read, const ReadBlock& block, int i, int c, float acc,
                                    float sum) {
  read.out.row(block.first_row +
               i / block.num_heads)[(block.first_head + i % block.num_heads) * read.values.dim + c] =
      acc * (1.0f / sum);
}
__device__ inline int64_t PartialRow(const PagedRead& read, const ReadBlock& block, int chain, int i) {
  return static_cast<int64_t>(chain) * LiveRows(read.live, read.partial_rows) + block.wave_row + i;
}

}  // namespace sessa::cuda
