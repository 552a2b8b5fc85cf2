// Attention over pages for few queries (decode): one or two reads (kernels.h, PagedRead) in two launches.
//
// FewTileKernel: a work item is a tile of 64 tokens, of which a thread block leaves the softmax (m, l) and
// the weighted values in scratch: 1/16 of the 4 bytes that it reads for each token and dimension in bf16.
// Keys, in slices of 256 bytes a token, and then values, 32 tokens by 512 bytes, come through one ring of
// five stages: four of them, 64 KiB, are on their way to a block, and two blocks run on a multiprocessor. A
// lone block then gets what a multiprocessor can take (about 64 KiB in a latency of 0.8 us), which is what a
// short context needs: 2048 tokens are 32 tiles of the feedback, for 132 multiprocessors. The two reads share
// a launch, the larger items first. Grid: any number of blocks, which share the items evenly.
//
// FoldKernel: the tiles of a chain in their order, 32 at a time through two stages. The own tile of a
// feedback block comes last: its cached tokens are added to the rescaled chain one by one, and FeedbackSolve
// goes on with the tokens of the block itself. Grid: (read, block, query, chain, part of 128 columns). It is
// a launch of its own because a long chain wants more blocks than the one that is last to leave its tile.
//
// All sums run as in paged_read.cu, so prefill by float32 and decode give the same bits. Method: split
// softmax (Milakov and Gimelshein 2018; Flash-Decoding, Dao et al. 2023).
#include "kernels/cuda/dot_tile.cuh"
#include "kernels/cuda/paged_read.cuh"

namespace sessa::cuda {
namespace {

constexpr int kStages = 5;

template <class T>
struct TileShape {
  static constexpr int kChunk = 16 / sizeof(T);     // elements of a copy
  static constexpr int kDepth = 256 / sizeof(T);    // dimensions of a stage of keys
  static constexpr int kTokens = kTile / 2;         // of a stage of values
  static constexpr int kColumns = 512 / sizeof(T);  // of a stage of values
};

// The queries follow: [num_queries][QueryStride(dim)] floats.
template <class T, int kQueries>
struct TileShared {
  using Shape = TileShape<T>;
  union Stage {
    alignas(16) T keys[kTile][Shape::kDepth + Shape::kChunk];  // neighbours in different banks
    alignas(16) T values[Shape::kTokens][Shape::kColumns];
  };
  Stage stages[kStages];
  alignas(16) float sums[2][kQueries][kTile];  // as DotTile::Join leaves them; then the probabilities
  alignas(16) int64_t rows[kTile];             // where a token's key and its value begin, or -1
};
constexpr int QueryStride(int dim) { return RoundUp(dim, 64); }

// One work item of at most kQueries queries.
template <class T, int kQueries>
__device__ void ReadTile(const PagedRead& read, int item) {
  using Shape = TileShape<T>;
  using Shared = TileShared<T, kQueries>;
  auto& shared = *static_cast<Shared*>(DynamicShared());
  float* queries = reinterpret_cast<float*>(&shared + 1);
  const int block_index = BlockOf(read, item);
  const ReadBlock block = read.blocks[block_index];
  const Geometry g(read, block);
  const int thread = threadIdx.x, tile = item - block.first_item, dim = read.keys.dim, padded = Padded(dim);
  if (!IsRead(read, g, tile)) return;
  const int num_tokens = min(kTile, g.horizon - tile * kTile), query_stride = QueryStride(dim);
  const T* keys = static_cast<const T*>(read.keys.data);
  const T* values = static_cast<const T*>(read.values.data);
  if (thread < kTile) {
    shared.rows[thread] = thread < num_tokens
                              ? VectorAt<T>(read.keys, block.pages, block.kv, tile * kTile + thread) - keys
                              : -1;
  }
  __syncthreads();
  const int key_stages = (dim + Shape::kDepth - 1) / Shape::kDepth;
  const int halves = num_tokens > Shape::kTokens ? 2 : 1;
  const int column_parts =
      tile == g.own_tile ? 0 : (padded + Shape::kColumns - 1) / Shape::kColumns;  // its values are the fold's
  const int num_stages = key_stages + column_parts * halves;
  const auto load = [&](int s) {
    typename Shared::Stage& stage = shared.stages[s % kStages];
    if (s < key_stages) {
      constexpr int kChunks = Shape::kDepth / Shape::kChunk;
      const int chunk = thread % kChunks * Shape::kChunk, k = s * Shape::kDepth + chunk;
#pragma unroll
      for (int j = thread / kChunks; j < kTile; j += kThreads / kChunks) {
        const int64_t row = shared.rows[j];
        const bool valid = row >= 0 && k < padded;
        CopyAsync(&stage.keys[j][chunk], keys + (valid ? row + k : 0), valid);
      }
    } else if (s < num_stages) {
      constexpr int kChunks = Shape::kColumns / Shape::kChunk;
      const int chunk = thread % kChunks * Shape::kChunk,
                column = (s - key_stages) / halves * Shape::kColumns + chunk;
      const int64_t* rows = shared.rows + (s - key_stages) % halves * Shape::kTokens;
      if (column < padded) {
#pragma unroll
        for (int j = thread / kChunks; j < Shape::kTokens; j += kThreads / kChunks) {
          const bool valid = rows[j] >= 0;
          CopyAsync(&stage.values[j][chunk], values + (valid ? rows[j] + column : 0), valid);
        }
      }
    }
    CommitCopies();
  };
  for (int s = 0; s < kStages - 1; ++s) load(s);
  for (int i = thread; i < g.num_queries * query_stride; i += kThreads) {
    const int query = i / query_stride, k = i % query_stride;
    queries[i] =
        k < dim ? read.q.row(block.first_row +
                             query / block.num_heads)[(block.first_head + query % block.num_heads) * dim + k]
                : 0.0f;
  }
  // Stage s is there, and the stage that was computed with before is on its way again.
  const auto next = [&](int s) -> const typename Shared::Stage& {
    WaitForCopies<kStages - 2>();
    __syncthreads();
    load(s + kStages - 1);
    return shared.stages[s % kStages];
  };

  using Dot = DotTile<T, kQueries, true>;
  const int group = thread / Dot::kGroupThreads, key = thread % Dot::kGroupThreads;
  float acc[kQueries][1] = {};
  for (int s = 0; s < key_stages; ++s) {
    const auto& stage = next(s);
    const int first = s * Shape::kDepth, depth = min(Shape::kDepth, query_stride - first);
    for (int k0 = group * 16; k0 < depth; k0 += 64) {
#pragma unroll(kQueries > 4 ? 2 : 4)
      for (int k = k0; k < k0 + 16; k += 4) {
        const float4 b = Load4(&stage.keys[key][k]);
#pragma unroll
        for (int i = 0; i < kQueries; ++i) {
          // Beyond the last query its scores are computed again, and not used.
          const float4 a = Load4(queries + min(i, g.num_queries - 1) * query_stride + first + k);
          acc[i][0] = fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, acc[i][0]))));
        }
      }
    }
  }
  Dot::Join(shared.sums, acc);
  const auto& p = shared.sums[0];
  const int64_t at = block.tile_base + static_cast<int64_t>(tile) * g.num_queries;
  TileSoftmax(read, block, g, tile, shared.sums[0], read.work->tile_stats + 2 * at);
  if (tile == g.own_tile) {
    float* out = read.work->own_p + static_cast<int64_t>(block_index) * kMaxQueries * kTile;
    for (int i = thread; i < g.num_queries * kTile; i += kThreads) out[i] = p[i / kTile][i % kTile];
    return;
  }
  // A thread owns a column of every `groups`-th query: narrow values leave threads for all queries at once.
  const int columns = padded <= 64 ? 64 : padded <= 128 ? 128 : Shape::kColumns;
  const int groups = kThreads / columns, first_query = thread / columns, column = thread % columns;
  float a[kQueries] = {};
  for (int s = key_stages; s < num_stages; ++s) {
    const auto& stage = next(s);
    const int half = (s - key_stages) % halves, at_column = (s - key_stages) / halves * columns + column;
    const int first = half * Shape::kTokens, n = min(Shape::kTokens, num_tokens - first);
#pragma unroll
    for (int i = 0; i < kQueries; ++i) a[i] = half == 0 ? 0.0f : a[i];
    int j = 0;
#pragma unroll 2
    for (; j + 4 <= n; j += 4) {
      float v[4];
#pragma unroll
      for (int t = 0; t < 4; ++t) v[t] = ToFloat(stage.values[j + t][column]);
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        const int query = first_query + i * groups;
        if (query >= g.num_queries) break;
        const float4 w = Load4(&p[query][first + j]);
        a[i] = fmaf(w.w, v[3], fmaf(w.z, v[2], fmaf(w.y, v[1], fmaf(w.x, v[0], a[i]))));
      }
    }
    for (; j < n; ++j) {
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        const int query = first_query + i * groups;
        if (query >= g.num_queries) break;
        a[i] = fmaf(p[query][first + j], ToFloat(stage.values[j][column]), a[i]);
      }
    }
    if (half < halves - 1 || at_column >= padded) continue;
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      const int query = first_query + i * groups;
      if (query >= g.num_queries) break;
      read.work->tile_values[(at + query) * padded + at_column] = a[i];
    }
  }
}

// kQueries: the most that a read has.
template <class T, int kQueries>
__global__ void __launch_bounds__(kThreads, 2) FewTileKernel(const FewReads reads) {
  BeginKernel();
  const int first = reads.read[0].work->num_items;
  const int num_items = first + (reads.count > 1 ? reads.read[1].work->num_items : 0);
  for (int item = blockIdx.x; item < num_items; item += gridDim.x) {
    const PagedRead& read = reads.read[item < first ? 0 : 1];
    const int own_item = item < first ? item : item - first;
    if (read.max_queries == 1) {
      ReadTile<T, 1>(read, own_item);
    } else {
      ReadTile<T, kQueries>(read, own_item);
    }
    __syncthreads();  // shared memory is free for the next item
  }
}

constexpr int kFoldColumns = 128, kFoldTiles = 32, kFoldStages = 2;
template <class T>
struct FoldShared {
  alignas(16) float values[kFoldStages][kFoldTiles][kFoldColumns];
  alignas(16) T own_values[kTile][kFoldColumns];
  float tile_max[kFoldTiles], old_scale[kFoldTiles], tile_scale[kFoldTiles], scaled_sum[kFoldTiles],
      own[kTile];
};
constexpr int FoldParts(const PagedRead& read) { return (read.values.dim + kFoldColumns - 1) / kFoldColumns; }
constexpr int FoldBlocks(const PagedRead& read) {
  return FoldParts(read) * (read.num_chains / read.num_ranks) * read.num_blocks * read.max_queries;
}

template <class T>
__global__ void __launch_bounds__(kFoldColumns) FoldKernel(const FewReads reads) {
  BeginKernel();
  auto& shared = *static_cast<FoldShared<T>*>(DynamicShared());
  int index = blockIdx.x;
  const bool is_first = index < FoldBlocks(reads.read[0]);
  if (!is_first) index -= FoldBlocks(reads.read[0]);
  const PagedRead& read = reads.read[is_first ? 0 : 1];
  const int parts = FoldParts(read), num_chains = read.num_chains, chains = num_chains / read.num_ranks;
  const int first_column = index % parts * kFoldColumns,
            chain = index / parts % chains * read.num_ranks + read.rank;
  const int block_index = index / parts / chains / read.max_queries,
            i = index / parts / chains % read.max_queries;
  const ReadBlock block = read.blocks[block_index];
  const Geometry g(read, block);
  if (i >= g.num_queries) return;
  const ReadWork work = *read.work;
  const int thread = threadIdx.x, column = first_column + thread, dim = read.values.dim, padded = Padded(dim);
  const int end = read.feedback ? g.own_tile : (g.horizon + kTile - 1) / kTile;
  const int num_tiles = end > chain ? (end - chain + num_chains - 1) / num_chains : 0;
  const auto at = [&](int t) {  // in scratch, of the chain's t-th tile
    return block.tile_base + static_cast<int64_t>(chain + t * num_chains) * g.num_queries + i;
  };
  const bool is_own = read.feedback && g.own_tile % num_chains == chain;
  const int first_own = g.own_tile * kTile, num_own = is_own ? block.start - first_own : 0;
  constexpr int kChunk = 16 / sizeof(T), kOwnChunks = kFoldColumns / kChunk;
  for (int k = thread; k < num_own * kOwnChunks; k += kFoldColumns) {
    const int j = k / kOwnChunks, c = k % kOwnChunks * kChunk;
    if (first_column + c < padded)
      CopyAsync(&shared.own_values[j][c],
                VectorAt<T>(read.values, block.pages, 0, first_own + j) + first_column + c, true);
  }
  float next_max = -INFINITY, next_sum = 0;  // of tile `thread` of the next stage
  const auto load = [&](int first) {
    const int n = min(kFoldTiles, num_tiles - first);
    auto& stage = shared.values[first / kFoldTiles % kFoldStages];
    for (int k = thread; k < n * kFoldColumns / 4; k += kFoldColumns) {
      const int t = k / (kFoldColumns / 4), c = k % (kFoldColumns / 4) * 4;
      if (first_column + c < padded)
        CopyAsync(&stage[t][c], work.tile_values + at(first + t) * padded + first_column + c, true);
    }
    if (thread < kFoldTiles) {
      next_max = thread < n ? work.tile_stats[2 * at(first + thread)] : -INFINITY;
      next_sum = thread < n ? work.tile_stats[2 * at(first + thread) + 1] : 0.0f;
    }
    CommitCopies();
  };
  float max = -INFINITY, sum = 0, acc = 0;
  load(0);
  for (int first = 0; first < num_tiles; first += kFoldTiles) {
    const int n = min(kFoldTiles, num_tiles - first);
    if (thread < kFoldTiles) {  // a warp
      float before = WarpMaxBefore(next_max);
      before = fmaxf(before, max);
      const Rescale r = Extend(before, next_max);
      shared.tile_max[thread] = next_max;
      shared.old_scale[thread] = r.old;
      shared.tile_scale[thread] = r.tile;
      shared.scaled_sum[thread] = next_sum * r.tile;
    }
    load(first + kFoldTiles);
    WaitForCopies<1>();
    __syncthreads();
    const auto& stage = shared.values[first / kFoldTiles % kFoldStages];
#pragma unroll 8
    for (int t = 0; t < n; ++t) {
      max = fmaxf(max, shared.tile_max[t]);
      sum = fmaf(sum, shared.old_scale[t], shared.scaled_sum[t]);
      acc = fmaf(acc, shared.old_scale[t], stage[t][thread] * shared.tile_scale[t]);
    }
    __syncthreads();  // the stage and the scales are free
  }
  if (!read.feedback) {
    if (column < dim) WriteForward(read, block, i, column, acc, sum);
    return;
  }
  const int64_t row = PartialRow(read, block, chain, i);
  if (is_own) {
    float* p_out = read.p + static_cast<int64_t>(block.wave_row + i) * kTile;
    const bool seen = IsRead(read, g, g.own_tile);  // not by a lone row at the start of its tile
    const int64_t own_at = block.tile_base + static_cast<int64_t>(g.own_tile) * g.num_queries + i;
    const Rescale r = seen ? Extend(max, work.tile_stats[2 * own_at]) : Rescale{max, 1.0f, 0.0f};
    if (seen) sum = fmaf(sum, r.old, work.tile_stats[2 * own_at + 1] * r.tile);
    max = r.max;
    if (thread < kTile) {
      shared.own[thread] =
          seen ? work.own_p[(static_cast<int64_t>(block_index) * kMaxQueries + i) * kTile + thread] * r.tile
               : 0.0f;
      if (first_column == 0) p_out[thread] = shared.own[thread];
    }
    WaitForCopies<0>();
    __syncthreads();
    acc *= r.old;
#pragma unroll 8
    for (int j = 0; j < num_own; ++j) acc = fmaf(shared.own[j], ToFloat(shared.own_values[j][thread]), acc);
  }
  if (column < dim) read.acc[row * read.width + column] = acc;
  if (column == 0) {
    read.max[row] = max;
    read.sum[row] = sum;
  }
}

template <class T, int kQueries>
size_t TileBytes(const PagedRead& read) {
  return sizeof(TileShared<T, kQueries>) + sizeof(float) * read.max_queries * QueryStride(read.keys.dim);
}

template <class T, int kQueries>
void LaunchTiles(cudaStream_t stream, const FewReads& reads, int num_ctas) {
  size_t bytes = 0;
  for (int i = 0; i < reads.count; ++i) {
    const PagedRead& read = reads.read[i];
    const size_t own = read.max_queries == 1 ? TileBytes<T, 1>(read) : TileBytes<T, kQueries>(read);
    bytes = own > bytes ? own : bytes;
  }
  Launch(stream, dim3(num_ctas), kThreads, bytes, FewTileKernel<T, kQueries>, reads);
}

template <class T>
void LaunchReads(cudaStream_t stream, const FewReads& reads, int num_ctas) {
  int max_queries = 0, fold_blocks = 0;
  for (int i = 0; i < reads.count; ++i) {
    max_queries = reads.read[i].max_queries > max_queries ? reads.read[i].max_queries : max_queries;
    fold_blocks += FoldBlocks(reads.read[i]);
  }
  if (num_ctas > 0) {  // else nothing is cached yet
    const auto tiles = max_queries == 1   ? LaunchTiles<T, 1>
                       : max_queries <= 4 ? LaunchTiles<T, 4>
                                          : LaunchTiles<T, kFewQueries>;
    tiles(stream, reads, num_ctas);
  }
  Launch(stream, dim3(fold_blocks), kFoldColumns, sizeof(FoldShared<T>), FoldKernel<T>, reads);
}

}  // namespace

void ReadFewQueries(cudaStream_t stream, const FewReads& reads, int num_ctas) {
  if (reads.read[0].keys.dtype == DType::kF32) {
    LaunchReads<float>(stream, reads, num_ctas);
  } else {
    LaunchReads<Bf16>(stream, reads, num_ctas);
  }
}

}  // namespace sessa::cuda
