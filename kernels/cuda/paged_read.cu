// Attention over pages in softmax tiles: the forward attention and the feedback read (kernels.h, PagedRead).
//
// A tile's scores, its maximum m, its sum l = sum exp(x - m) and its weighted values a = sum exp(x - m) v are
// computed alone, then folded into the chain in the order of the tiles. Few queries (decode): one block a
// tile reads its keys and values once, 4 bytes a token and dimension in bf16, and leaves (m, l, a) in
// scratch: 1/16 of that for one query. A second kernel folds. Many queries (prefill): one kernel leaves (m,
// l) and exp(x - m), a second one multiplies and folds in registers, a block for each chain and 64 columns.
// Both add in the same order (over dimensions as DotTile, over the tokens of a tile one after another, over
// tiles by Extend), so prefill and decode give the same bits.
//
// The own tile of a feedback block comes last in its chain: its cached tokens are added to the rescaled chain
// one by one, and FeedbackSolve goes on with the tokens of the block itself. Method: split softmax (Milakov
// and Gimelshein 2018; Flash-Decoding, Dao et al. 2023).
#include "kernels/cuda/dot_tile.cuh"
#include "kernels/cuda/paged_read.cuh"

namespace sessa::cuda {
namespace {

// The tile's scores in shared memory become exp(x - m), its m and l go to stats [num_queries, 2]. A warp a
// query.
template <class Scores>
__device__ void TileSoftmax(const PagedRead& read, const ReadBlock& block, const Geometry& g, int tile,
                            Scores& scores, float* stats) {
  const int lane = threadIdx.x % kWarpLanes;
  for (int i = threadIdx.x / kWarpLanes; i < g.num_queries; i += kThreads / kWarpLanes) {
    const int visible = block.start + i / block.num_heads + (read.feedback ? 0 : 1) - tile * kTile;
    const float x0 = lane < visible ? scores[i][lane] * read.scale : -INFINITY;
    const float x1 = lane + kWarpLanes < visible ? scores[i][lane + kWarpLanes] * read.scale : -INFINITY;
    const float m = WarpMax(fmaxf(x0, x1));
    const float p0 = lane < visible ? expf(x0 - m) : 0.0f,
                p1 = lane + kWarpLanes < visible ? expf(x1 - m) : 0.0f;
    const float l = WarpSum(p0 + p1);
    scores[i][lane] = p0;
    scores[i][lane + kWarpLanes] = p1;
    if (lane == 0) {
      stats[2 * i] = m;
      stats[2 * i + 1] = l;
    }
  }
  __syncthreads();
}

// Values of a tile as narrow as this are read by too few threads to hide where they come from: they are
// copied to shared memory while the scores are computed.
constexpr int kMaxStagedDim = 128;
template <class T>
size_t StagedBytes(int dim) {
  return dim <= kMaxStagedDim ? kTile * Padded(dim) * sizeof(T) : 0;
}

// Scores of one tile and, for few queries, its weighted values: a work item.
template <class T, int kQueriesPerThread, bool kFew>
__device__ void ReadTile(const PagedRead& read, int block_index, int item) {
  using Tile = DotTile<T, kQueriesPerThread, kFew>;
  auto& shared = *static_cast<typename Tile::Shared*>(DynamicShared());
  __shared__ const T* value_rows[kTile];
  const ReadBlock block = read.blocks[block_index];
  const Geometry g(read, block);
  const int tile = item - block.first_item, dim = read.keys.dim;
  if (!IsRead(read, g, tile)) return;
  const int num_tokens = min(kTile, g.horizon - tile * kTile);
  const auto value = [&](int j) { return VectorAt<T>(read.values, block.pages, block.kv, tile * kTile + j); };
  if (kFew && dim <= kMaxStagedDim && tile != g.own_tile) {
    constexpr int kChunk = 16 / sizeof(T);
    T* staged = reinterpret_cast<T*>(&shared + 1);
    const int chunks = Padded(dim) / kChunk;
    for (int i = threadIdx.x; i < num_tokens * chunks; i += kThreads) {
      const int j = i / chunks, c = i % chunks * kChunk;
      CopyAsync(staged + j * Padded(dim) + c, value(j) + c, true);
    }
    CommitCopies();  // the wait for the last keys is for these too
    if (static_cast<int>(threadIdx.x) < num_tokens)
      value_rows[threadIdx.x] = staged + static_cast<int>(threadIdx.x) * Padded(dim);
  } else if (static_cast<int>(threadIdx.x) < num_tokens) {
    value_rows[threadIdx.x] = value(static_cast<int>(threadIdx.x));
  }
  const auto query = [&](int i) -> const float* {
    if (i >= g.num_queries) return nullptr;
    return read.q.row(block.first_row + i / block.num_heads) + (block.first_head + i % block.num_heads) * dim;
  };
  const auto key = [&](int j) -> const T* {
    return j < num_tokens ? VectorAt<T>(read.keys, block.pages, block.kv, tile * kTile + j) : nullptr;
  };
  Tile::Run(shared, 0, dim, dim, query, key);
  auto& p = shared.sums[0];
  const int64_t at = block.tile_base + static_cast<int64_t>(tile) * (kFew ? g.num_queries : kMaxQueries);
  TileSoftmax(read, block, g, tile, p, read.work->tile_stats + 2 * at);

  const auto keep_probabilities = [&](float* out) {
    for (int i = threadIdx.x; i < g.num_queries * kTile; i += kThreads) out[i] = p[i / kTile][i % kTile];
  };
  if constexpr (!kFew) {
    keep_probabilities(read.work->tile_values + at * kTile);
  } else if (tile == g.own_tile) {
    keep_probabilities(read.work->own_p + static_cast<int64_t>(block_index) * kMaxQueries * kTile);
  } else {
    // A thread owns four columns; the values of a token are read by the whole block at once.
    for (int c = threadIdx.x * 4; c < Padded(dim); c += kThreads * 4) {
      float a[kQueriesPerThread][4] = {};
#pragma unroll 8
      for (int j = 0; j < num_tokens; ++j) {
        const float4 v = Load4(value_rows[j] + c);
#pragma unroll
        for (int i = 0; i < kQueriesPerThread; ++i) {
          a[i][0] = fmaf(p[i][j], v.x, a[i][0]);
          a[i][1] = fmaf(p[i][j], v.y, a[i][1]);
          a[i][2] = fmaf(p[i][j], v.z, a[i][2]);
          a[i][3] = fmaf(p[i][j], v.w, a[i][3]);
        }
      }
#pragma unroll
      for (int i = 0; i < kQueriesPerThread; ++i) {
        if (i < g.num_queries) {
          *reinterpret_cast<float4*>(read.work->tile_values + (at + i) * Padded(dim) + c) = {
              a[i][0], a[i][1], a[i][2], a[i][3]};
        }
      }
    }
  }
}

// Grid: any number of blocks, which share the work items evenly.
template <class T, int kQueriesPerThread, bool kFew>
__global__ void __launch_bounds__(kThreads, DotTile<T, kQueriesPerThread, kFew>::kMinBlocks)
    TileKernel(const PagedRead read) {
  BeginKernel();
  for (int item = blockIdx.x; item < read.work->num_items; item += gridDim.x) {
    ReadTile<T, kQueriesPerThread, kFew>(read, BlockOf(read, item), item);
    __syncthreads();  // shared memory is free for the next item
  }
}

// Folds the tiles of few queries. Grid: columns in parts of kFoldColumns x chains of this rank x (block,
// query of the most that a block has).
constexpr int kFoldColumns = 128;
template <class T>
__global__ void __launch_bounds__(kFoldColumns) FoldKernel(const PagedRead read) {
  BeginKernel();
  __shared__ float tile_max[kTile], old_scale[kTile], tile_scale[kTile], scaled_sum[kTile], own[kTile];
  const int block_index = blockIdx.z / read.max_queries;
  const ReadBlock block = read.blocks[block_index];
  const Geometry g(read, block);
  const ReadWork work = *read.work;
  const int i = blockIdx.z % read.max_queries, thread = threadIdx.x,
            column = blockIdx.x * kFoldColumns + thread;
  const int chain = blockIdx.y * read.num_ranks + read.rank, dim = read.values.dim;
  if (i >= g.num_queries) return;
  const int end = read.feedback ? g.own_tile : (g.horizon + kTile - 1) / kTile;  // tiles to fold
  float max = -INFINITY, sum = 0, acc = 0;
  for (int first = chain; first < end;
       first += kTile * read.num_chains) {  // kTile tiles at a time, their scales in parallel
    const int n = min(kTile, (end - first + read.num_chains - 1) / read.num_chains);
    const auto at = [&](int t) {
      return block.tile_base + static_cast<int64_t>(first + t * read.num_chains) * g.num_queries + i;
    };
    __syncthreads();
    if (thread < n) tile_max[thread] = work.tile_stats[2 * at(thread)];
    __syncthreads();
    if (thread < n) {
      float before = max;
      for (int t = 0; t < thread; ++t) before = fmaxf(before, tile_max[t]);
      const Rescale r = Extend(before, tile_max[thread]);
      old_scale[thread] = r.old;
      tile_scale[thread] = r.tile;
      scaled_sum[thread] = work.tile_stats[2 * at(thread) + 1] * r.tile;
    }
    __syncthreads();
    // A long context is folded by few threads: many loads have to be under way.
    constexpr int kBatch = 16;
    const float* values = work.tile_values + at(0) * Padded(dim) + column;
    const int64_t step = static_cast<int64_t>(read.num_chains) * g.num_queries * Padded(dim);
    for (int t0 = 0; t0 < n; t0 += kBatch) {
      float batch[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i, values += step) batch[i] = t0 + i < n && column < dim ? *values : 0.0f;
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (t0 + i == n) break;
        max = fmaxf(max, tile_max[t0 + i]);
        sum = fmaf(sum, old_scale[t0 + i], scaled_sum[t0 + i]);
        acc = fmaf(acc, old_scale[t0 + i], batch[i] * tile_scale[t0 + i]);
      }
    }
  }
  if (!read.feedback) {
    if (column < dim) WriteForward(read, block, i, column, acc, sum);
    return;
  }
  const int64_t row = PartialRow(read, block, chain, i);
  if (g.own_tile % read.num_chains == chain) {
    float* p_out = read.p + static_cast<int64_t>(block.wave_row + i) * kTile;
    const bool seen = IsRead(read, g, g.own_tile);  // not by a lone row at the start of its tile
    const int64_t at = block.tile_base + static_cast<int64_t>(g.own_tile) * g.num_queries + i;
    const Rescale r = seen ? Extend(max, work.tile_stats[2 * at]) : Rescale{max, 1.0f, 0.0f};
    if (seen) sum = fmaf(sum, r.old, work.tile_stats[2 * at + 1] * r.tile);
    max = r.max;
    if (thread < kTile) {
      own[thread] =
          seen ? work.own_p[(static_cast<int64_t>(block_index) * kMaxQueries + i) * kTile + thread] * r.tile
               : 0.0f;
      if (blockIdx.x == 0) p_out[thread] = own[thread];
    }
    __syncthreads();
    acc *= r.old;
    const int first = g.own_tile * kTile;
    if (column < dim) {
      for (int j = 0; j < block.start - first; ++j) {
        acc = fmaf(own[j], ToFloat(VectorAt<T>(read.values, block.pages, 0, first + j)[column]), acc);
      }
    }
  }
  if (column < dim) read.acc[row * read.width + column] = acc;
  if (blockIdx.x == 0 && thread == 0) {
    read.max[row] = max;
    read.sum[row] = sum;
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
  const int num_tiles = (g.horizon + kTile - 1) / kTile;
  float max = -INFINITY, sum = 0;  // of query `thread`
  float acc[4][4] = {};
  for (int tile = chain; tile < num_tiles; tile += read.num_chains) {
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
        v = Load4(VectorAt<T>(read.values, block.pages, block.kv, tile * kTile + j) + first_column + c);
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

template <class T, int kQueriesPerThread, bool kFew>
void LaunchTiles(cudaStream_t stream, const PagedRead& read, int num_ctas) {
  if (num_ctas == 0) return;
  const size_t bytes = sizeof(typename DotTile<T, kQueriesPerThread, kFew>::Shared);
  Launch(stream, dim3(num_ctas), kThreads, bytes + (kFew ? StagedBytes<T>(read.values.dim) : 0),
         TileKernel<T, kQueriesPerThread, kFew>, read);
}

template <class T>
void FewQueries(cudaStream_t stream, const PagedRead& read, int num_ctas) {
  if (read.max_queries == 1) {
    LaunchTiles<T, 1, true>(stream, read, num_ctas);
  } else {
    LaunchTiles<T, kFewQueries, true>(stream, read, num_ctas);
  }
  const dim3 grid((read.values.dim + kFoldColumns - 1) / kFoldColumns, read.num_chains / read.num_ranks,
                  read.num_blocks * read.max_queries);
  Launch(stream, grid, kFoldColumns, 0, FoldKernel<T>, read);
}

template <class T>
void ManyQueries(cudaStream_t stream, const PagedRead& read, int num_ctas) {
  LaunchTiles<T, 8, false>(stream, read, num_ctas);
  const dim3 grid((read.values.dim + kValueColumns - 1) / kValueColumns, read.num_chains / read.num_ranks,
                  read.num_blocks);
  Launch(stream, grid, kThreads, sizeof(ValueShared), ValueKernel<T>, read);
}

}  // namespace

void ReadFewQueries(cudaStream_t stream, const PagedRead& read, int num_ctas) {
  if (read.num_blocks == 0) return;
  if (read.keys.dtype == DType::kF32) {
    FewQueries<float>(stream, read, num_ctas);
  } else {
    FewQueries<Bf16>(stream, read, num_ctas);
  }
}

void ReadManyQueries(cudaStream_t stream, const PagedRead& read, int num_ctas) {
  if (read.num_blocks == 0) return;
  if (read.keys.dtype == DType::kF32) {
    ManyQueries<float>(stream, read, num_ctas);
  } else {
    ManyQueries<Bf16>(stream, read, num_ctas);
  }
}

}  // namespace sessa::cuda
