// Attention over pages in softmax tiles, for many queries (prefill) in float32 (kernels.h, PagedRead).
//
// A tile's scores, its maximum m, its sum l = sum exp(x - m) and its weighted values a = sum exp(x - m) v are
// computed alone, then folded into the chain in the order of the tiles. One kernel leaves (m, l) and exp(x -
// m) in scratch, a second one multiplies and folds in registers, a block for each chain and 64 columns. Few
// queries (few_read.cu) add in the same order: over dimensions as DotTile, over the tokens of a tile one
// after another, over tiles by Extend. So prefill and decode give the same bits.
//
// The own tile of a feedback block comes last in its chain: its cached tokens are added to the rescaled chain
// one by one, and FeedbackSolve goes on with the tokens of the block itself.
#include "kernels/cuda/dot_tile.cuh"
#include "kernels/cuda/paged_read.cuh"

namespace sessa::cuda {
namespace {

// Scores of one tile: a work item. Grid: any number of blocks, which share the items evenly.
template <class T>
__global__ void __launch_bounds__(kThreads) TileKernel(const PagedRead read) {
  BeginKernel();
  using Tile = DotTile<T, 8, false>;
  auto& shared = *static_cast<typename Tile::Shared*>(DynamicShared());
  const int dim = read.keys.dim;
  for (int item = blockIdx.x; item < read.work->num_items; item += gridDim.x) {
    const ReadBlock block = read.blocks[BlockOf(read.blocks, read.num_blocks, item)];
    const Geometry g(read, block);
    const int tile = item - block.zero_item;
    if (!IsRead(read, g, tile)) continue;
    const auto query = [&](int i) -> const float* {
      if (i >= g.num_queries) return nullptr;
      return read.q.row(block.first_row + i / block.num_heads) +
             (block.first_head + i % block.num_heads) * dim;
    };
    const auto key = [&](int j) -> const T* {
      const int position = tile * kTile + j;
      return position < g.horizon ? VectorAt<T>(read.keys, block.pages, block.kv, position) : nullptr;
    };
    if constexpr (kIsInt8<T>) {
      Tile::Run(shared, 0, dim, dim, query, key, [&](int j, int group) {
        return ScaleOf(key(j)[ToExponent(read.keys, j, group * kStateGroup)]);
      });
    } else {
      Tile::Run(shared, 0, dim, dim, query, key);
    }
    auto& p = shared.sums[0];
    const int64_t at = block.tile_base + static_cast<int64_t>(tile) * kMaxQueries;
    TileSoftmax(read, block, g, tile, p, [&](int i) { return read.work->tile_stats + 2 * (at + i); });
    float* out = read.work->tile_values + at * kTile;
    for (int i = threadIdx.x; i < g.num_queries * kTile; i += kThreads) out[i] = p[i / kTile][i % kTile];
    __syncthreads();  // shared memory is free for the next item
  }
}

// Weighted values of many queries. Grid: columns in parts of 64 x chains of this rank x blocks. A thread owns
// 4 x 4 results.
constexpr int kValueColumns = 64;
struct ValueShared {
  alignas(16) float p[kMaxQueries][kTile + 4];
  alignas(16) float v[kTile][kValueColumns];
  float old_scale[kMaxQueries], tile_scale[kMaxQueries];
};

template <class T>
__global__ void __launch_bounds__(kThreads) ValueKernel(const PagedRead read) {
  BeginKernel();
  auto& shared = *static_cast<ValueShared*>(DynamicShared());
  const ReadBlock block = read.blocks[blockIdx.z];
  const Geometry g(read, block);
  const ReadWork work = *read.work;
  const int thread = threadIdx.x, query0 = thread / 16 * 4, column0 = thread % 16 * 4;
  const int first_column = blockIdx.x * kValueColumns, dim = read.values.dim;
  const int chain = blockIdx.y * read.num_ranks + read.rank;
  const int num_tiles = CeilDiv(g.horizon, kTile);
  float max = -INFINITY, sum = 0;  // of query `thread`
  float acc[4][4] = {};
  for (int tile = block.first_tile + chain; tile < num_tiles; tile += read.num_chains) {
    const bool own = tile == g.own_tile;
    // The tokens whose values are in the cache.
    const int num_tokens = min(kTile, (own ? block.start : g.horizon) - tile * kTile);
    const int64_t at = block.tile_base + static_cast<int64_t>(tile) * kMaxQueries;
    __syncthreads();
    if (thread < kMaxQueries) {
      Rescale r = {max, 1.0f, 0.0f};
      if (thread < g.num_queries) {
        r = Extend(max, work.tile_stats[2 * (at + thread)]);
        sum = fmaf(sum, r.old, work.tile_stats[2 * (at + thread) + 1] * r.tile);
      }
      max = r.max;
      shared.old_scale[thread] = r.old;
      shared.tile_scale[thread] = r.tile;
    }
    for (int i = thread; i < kMaxQueries * kTile; i += kThreads) {
      shared.p[i / kTile][i % kTile] = i / kTile < g.num_queries ? work.tile_values[at * kTile + i] : 0.0f;
    }
    for (int i = thread; i < kTile * kValueColumns / 4; i += kThreads) {
      const int j = i / (kValueColumns / 4), c = i % (kValueColumns / 4) * 4;
      float4 v = {0, 0, 0, 0};
      if (j < num_tokens && first_column + c < Padded(dim)) {
        v = LoadState4(read.values, VectorAt<T>(read.values, block.pages, block.kv, tile * kTile + j), j,
                       first_column + c);
      }
      *reinterpret_cast<float4*>(&shared.v[j][c]) = v;
    }
    __syncthreads();
    if (own) {
      for (int i = thread; i < g.num_queries * kTile; i += kThreads) {
        const float p = shared.p[i / kTile][i % kTile] * shared.tile_scale[i / kTile];
        shared.p[i / kTile][i % kTile] = p;
        if (blockIdx.x == 0) read.p[static_cast<int64_t>(block.wave_row) * kTile + i] = p;
      }
      __syncthreads();
    }
    float a[4][4];  // of this tile alone or, of the own tile, the rescaled chain
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) a[i][c] = own ? acc[i][c] * shared.old_scale[query0 + i] : 0.0f;
    }
    for (int j = 0; j < num_tokens; ++j) {
      const float4 v = Load4(&shared.v[j][column0]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float p = shared.p[query0 + i][j];
        a[i][0] = fmaf(p, v.x, a[i][0]);
        a[i][1] = fmaf(p, v.y, a[i][1]);
        a[i][2] = fmaf(p, v.z, a[i][2]);
        a[i][3] = fmaf(p, v.w, a[i][3]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        acc[i][c] =
            own ? a[i][c]
                : fmaf(acc[i][c], shared.old_scale[query0 + i], a[i][c] * shared.tile_scale[query0 + i]);
      }
    }
  }
  __syncthreads();
  if (thread < g.num_queries) {
    shared.tile_scale[thread] = sum;
    if (read.feedback && blockIdx.x == 0) {
      read.max[PartialRow(read, block, chain, thread)] = max;
      read.sum[PartialRow(read, block, chain, thread)] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int query = query0 + i, column = first_column + column0 + c;
      if (query >= g.num_queries || column >= dim) continue;
      if (read.feedback) {
        read.acc[PartialRow(read, block, chain, query) * read.width + column] = acc[i][c];
      } else {
        WriteForward(read, block, query, column, acc[i][c], shared.tile_scale[query]);
      }
    }
  }
}

template <class T>
void ManyQueries(cudaStream_t stream, const PagedRead& read, int num_ctas) {
  if (num_ctas > 0)
    Launch(stream, dim3(num_ctas), kThreads, sizeof(typename DotTile<T, 8, false>::Shared), TileKernel<T>,
           read);
  const dim3 grid(CeilDiv(read.values.dim, kValueColumns), read.num_chains / read.num_ranks, read.num_blocks);
  Launch(stream, grid, kThreads, sizeof(ValueShared), ValueKernel<T>, read);
}

}  // namespace

void ReadManyQueries(cudaStream_t stream, const PagedRead& read, int num_ctas) {
  if (read.num_blocks == 0) return;
  const DType dtype = read.keys.dtype;
  const auto launch = dtype == DType::kF32  ? ManyQueries<float>
                      : dtype == DType::kI8 ? ManyQueries<Int8>
                                            : ManyQueries<Bf16>;
  launch(stream, read, num_ctas);
}

}  // namespace sessa::cuda
