// What the kernels of paged reads share: which tokens a block of queries sees, where they are, and where
// results go.
#pragma once

#include "kernels/cuda/state.cuh"

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

// The block that a work item belongs to: the last one whose first item is not behind it. All lanes of a warp
// call it: each looks at one block, and then they share what is between two of these.
__device__ inline int BlockOf(const ReadBlock* blocks, int num_blocks, int item) {
  const int lane = threadIdx.x % kWarpLanes;
  int begin = 0, count = num_blocks;
  while (count > 1) {
    const int step = CeilDiv(count, kWarpLanes), at = lane * step;
    const bool is_before = at < count && blocks[begin + at].first_item <= item;
    const int last = static_cast<int>(WarpMax(is_before ? static_cast<float>(at) : 0.0f));
    begin += last;
    count = min(step, count - last);
  }
  return begin;
}

// The tile's scores in shared memory become exp(x - m), its m and l go to stats(query) [2]. A warp a query.
template <class Scores, class Stats>
__device__ void TileSoftmax(const PagedRead& read, const ReadBlock& block, const Geometry& g, int tile,
                            Scores& scores, const Stats& stats) {
  const int lane = threadIdx.x % kWarpLanes;
  for (int i = threadIdx.x / kWarpLanes; i < g.num_queries; i += kThreads / kWarpLanes) {
    const int end = block.start + i / block.num_heads + (read.feedback ? 0 : 1) - tile * kTile;
    const int begin = read.window == 0 ? 0 : end - read.window;
    const bool seen0 = lane >= begin && lane < end,
               seen1 = lane + kWarpLanes >= begin && lane + kWarpLanes < end;
    const float x0 = seen0 ? scores[i][lane] * read.scale : -INFINITY;
    const float x1 = seen1 ? scores[i][lane + kWarpLanes] * read.scale : -INFINITY;
    const float m = WarpMax(fmaxf(x0, x1));
    const float p0 = seen0 ? expf(x0 - m) : 0.0f, p1 = seen1 ? expf(x1 - m) : 0.0f;
    const float l = WarpSum(p0 + p1);
    scores[i][lane] = p0;
    scores[i][lane + kWarpLanes] = p1;
    if (lane == 0) {
      stats(i)[0] = m;
      stats(i)[1] = l;
    }
  }
  __syncthreads();
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
