// Attention over pages for few queries (decode): one or two reads (kernels.h, PagedRead) in two launches.
//
// FewTileKernel: of a tile of 64 tokens a thread block leaves the softmax (m, l) and the weighted values in
// scratch: 1/16 of the 4 bytes that it reads for each token and dimension in bf16. Keys, in slices of 256
// bytes a token, and then values, 32 tokens by 512 bytes, come through one ring of five stages: four of them,
// 64 KiB, are on their way to a block, and two blocks run on a multiprocessor. A lone block then gets what a
// multiprocessor can take (about 64 KiB in a latency of 0.8 us), which is what a short context needs: 2048
// tokens are 32 tiles of the feedback, for 132 multiprocessors. The tiles of forward attention are small,
// 16 KiB: a block reads a run of neighbours without a pause. Grid: any number of blocks (BeginOfRun).
//
// Sequences that begin with the same pages read them together (kernels/shared_reads.h): a tile of theirs is an
// item of its own, with a row of each as its queries, and leaves its results where each row's fold finds those
// of its own tiles. So a row has the same bits, whoever shares with it.
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

// While a tile is computed with, stages of the next two are on their way, and the rows of a third are looked
// up.
constexpr int kStages = 5, kRowSets = 4;

template <class T>
struct TileShape {
  static constexpr int kChunk = 16 / sizeof(T);     // elements of a copy
  static constexpr int kDepth = 256 / sizeof(T);    // dimensions of a stage of keys
  static constexpr int kTokens = kTile / 2;         // of a stage of values
  static constexpr int kColumnBits = sizeof(T) == 2 ? 8 : 7;
  static constexpr int kColumns = 1 << kColumnBits;  // of a stage of values: 512 bytes
};

// The queries follow: [QueryStride(dim) / 4][kQueries][4] floats.
template <class T, int kQueries>
struct TileShared {
  using Shape = TileShape<T>;
  union Stage {
    alignas(16) T keys[kTile][Shape::kDepth + Shape::kChunk];  // neighbours in different banks
    alignas(16) T values[Shape::kTokens][Shape::kColumns];
  };
  Stage stages[kStages];
  alignas(16) float sums[2][kQueries][kTile];  // as DotTile::Join leaves them; then the probabilities
  ReadBlock block;                             // that is read
  int index, behind;                           // which one, and the first item that is not its own
  SharedRow places[kQueries];                  // of its queries: the row, and where results go
  int64_t rows[kRowSets][kTile];               // of a tile: where a token's key and its value begin, or -1
};
constexpr int QueryStride(int dim) { return RoundUp(dim, 64); }

// Tiles first_tile .. first_tile + num_tiles of shared.block. An own tile comes alone.
template <class T, int kQueries>
__device__ __forceinline__ void ReadRun(const PagedRead& read, int first_tile, int num_tiles) {
  using Shape = TileShape<T>;
  using Shared = TileShared<T, kQueries>;
  auto& shared = *static_cast<Shared*>(DynamicShared());
  float* queries = reinterpret_cast<float*>(&shared + 1);
  const ReadBlock& block = shared.block;
  const Geometry g(read, block);
  const auto place_of = [&](int query, int tile) {  // in scratch
    const SharedRow& place = shared.places[query];
    return place.tile_base + static_cast<int64_t>(tile) * place.stride;
  };
  const int thread = threadIdx.x, dim = read.keys.dim, padded = Padded(dim), query_stride = QueryStride(dim);
  const T* keys = static_cast<const T*>(read.keys.data);
  const T* values = static_cast<const T*>(read.values.data);
  const auto row_of = [&](int n) -> int64_t {  // of the run's n-th tile, the thread's token
    const int position = (first_tile + n) * kTile + thread;
    return n < num_tiles && position < g.horizon
               ? VectorAt<T>(read.keys, block.pages, block.kv, position) - keys
               : -1;
  };
  if (thread < kTile) {
    for (int n = 0; n < kRowSets - 1; ++n) shared.rows[n][thread] = row_of(n);
  }
  __syncthreads();
  const bool own = first_tile == g.own_tile;  // its values are the fold's
  const int key_stages = CeilDiv(dim, Shape::kDepth),
            stages = key_stages + (own ? 0 : 2 * CeilDiv(padded, Shape::kColumns));
  struct {
    int tile, stage, slot;
  } loaded = {0, 0, 0};
  const auto load = [&] {
    typename Shared::Stage& stage = shared.stages[loaded.slot];
    const int64_t* rows = shared.rows[loaded.tile % kRowSets];
    if (loaded.tile >= num_tiles) {
      // Nothing is left; the group of copies counts.
    } else if (loaded.stage < key_stages) {
      constexpr int kChunks = Shape::kDepth / Shape::kChunk;
      const int chunk = thread % kChunks * Shape::kChunk, k = loaded.stage * Shape::kDepth + chunk;
#pragma unroll 1
      for (int j = thread / kChunks; j < kTile; j += kThreads / kChunks) {
        const bool valid = rows[j] >= 0 && k < padded;
        CopyAsync(&stage.keys[j][chunk], keys + (valid ? rows[j] + k : 0), valid);
      }
    } else {
      constexpr int kChunks = Shape::kColumns / Shape::kChunk;
      const int part = loaded.stage - key_stages, chunk = thread % kChunks * Shape::kChunk,
                column = part / 2 * Shape::kColumns + chunk;
      rows += part % 2 * Shape::kTokens;
#pragma unroll 1
      for (int j = thread / kChunks; j < Shape::kTokens; j += kThreads / kChunks) {
        if (rows[j] >= 0 && column < padded)
          CopyAsync(&stage.values[j][chunk], values + rows[j] + column, true);
      }
    }
    CommitCopies();
    if (++loaded.stage == stages) loaded.stage = 0, ++loaded.tile;
    if (++loaded.slot == kStages) loaded.slot = 0;
  };
  using Dot = DotTile<T, kQueries, true>;
  const int group = thread / Dot::kGroupThreads, key = thread % Dot::kGroupThreads;
  // Of values a thread owns a column of every `groups`-th query: narrow ones leave threads for all queries at
  // once.
  const int column_bits = padded <= 64 ? 6 : padded <= 128 ? 7 : Shape::kColumnBits;
  const auto& p = shared.sums[0];
  float x[kQueries][1] = {};  // of the thread's key, then of its column
  int64_t later_row = -1;
  for (int i = 1 - kStages, n = 0, s = 0; n < num_tiles; ++i) {
    if (i >= 0) {
      WaitForCopies<kStages - 2>();
      __syncthreads();  // the stage is there, and everyone is done with the one that is filled next
    }
    load();
    if (i == -1) {
      for (int j = thread; j < kQueries * query_stride; j += kThreads) {
        const int query = j / query_stride, k = j % query_stride;
        queries[(k / 4 * kQueries + query) * 4 + k % 4] =
            query < g.num_queries && k < dim
                ? read.q.row(
                      shared.places[query].row)[(block.first_head + query % block.num_heads) * dim + k]
                : 0.0f;
      }
    }
    if (i < 0) continue;
    const typename Shared::Stage& stage = shared.stages[loaded.slot];
    const int tile = first_tile + n;
    if (s < key_stages) {
      if (s == 0 && thread < kTile) later_row = row_of(n + kRowSets - 1);
      const int first = s * Shape::kDepth, depth = min(Shape::kDepth, query_stride - first);
      for (int k0 = group * 16; k0 < depth; k0 += 64) {
#pragma unroll(kQueries > 1 ? 1 : 2)
        for (int k = k0; k < k0 + 16; k += 8) {
          float4 b[2];  // eight lanes reach all banks with 16 bytes each
          Load8(&stage.keys[key][k], b);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int q = 0; q < kQueries; ++q) {
              const float4 a = Load4(queries + (first + k + 4 * half) * kQueries + q * 4);
              x[q][0] = fmaf(a.w, b[half].w,
                             fmaf(a.z, b[half].z, fmaf(a.y, b[half].y, fmaf(a.x, b[half].x, x[q][0]))));
            }
          }
        }
      }
      if (s == key_stages - 1) {
        Dot::Join(shared.sums, x);
        if (thread < kTile) shared.rows[(n + kRowSets - 1) % kRowSets][thread] = later_row;
        TileSoftmax(read, block, g, tile, shared.sums[0],
                    [&](int query) { return read.work->tile_stats + 2 * place_of(query, tile); });
        if (own) {
          float* out = read.work->own_p + static_cast<int64_t>(shared.index) * kMaxQueries * kTile;
          for (int j = thread; j < g.num_queries * kTile; j += kThreads) out[j] = p[j / kTile][j % kTile];
        }
#pragma unroll
        for (int q = 0; q < kQueries; ++q) x[q][0] = 0;
      }
    } else {
      const int part = s - key_stages, first = part % 2 * Shape::kTokens;
      const int groups = kThreads >> column_bits, first_query = thread >> column_bits,
                column = thread & ((1 << column_bits) - 1);
      const int num = min(Shape::kTokens, g.horizon - tile * kTile - first);
      int j = 0;
#pragma unroll(kQueries > 1 ? 1 : 2)
      for (; j + 4 <= num; j += 4) {
        float v[4];
#pragma unroll
        for (int t = 0; t < 4; ++t) v[t] = ToFloat(stage.values[j + t][column]);
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
          const int query = first_query + q * groups;
          if (query >= g.num_queries) break;
          const float4 w = Load4(&p[query][first + j]);
          x[q][0] = fmaf(w.w, v[3], fmaf(w.z, v[2], fmaf(w.y, v[1], fmaf(w.x, v[0], x[q][0]))));
        }
      }
      for (; j < num; ++j) {
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
          const int query = first_query + q * groups;
          if (query >= g.num_queries) break;
          x[q][0] = fmaf(p[query][first + j], ToFloat(stage.values[j][column]), x[q][0]);
        }
      }
      if (part % 2 != 0) {
        const int at_column = (part / 2 << column_bits) + column;
        float* out = read.work->tile_values + at_column;
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
          const int query = first_query + q * groups;
          if (query >= g.num_queries || at_column >= padded) break;
          out[place_of(query, tile) * padded] = x[q][0];
        }
#pragma unroll
        for (int q = 0; q < kQueries; ++q) x[q][0] = 0;
      }
    }
    if (++s == stages) s = 0, ++n;
  }
}

// The work items [begin, end) of a read. What is known of an item's block is in shared memory: registers are
// few.
template <class T, int kQueries>
__device__ __forceinline__ void ReadItems(const PagedRead& read, int begin, int end) {
  auto& shared = *static_cast<TileShared<T, kQueries>*>(DynamicShared());
  while (begin < end) {
    {
      const ReadWork& work = *read.work;
      const bool own = begin < work.own_items;
      const ReadBlock* blocks = own ? read.blocks : work.shared;
      const int num_blocks = own ? read.num_blocks : work.num_shared, b = BlockOf(blocks, num_blocks, begin);
      __syncthreads();  // the block before is done with
      // A word by each thread: one thread with all of them would hold 16 registers.
      if (threadIdx.x < sizeof(ReadBlock) / sizeof(int))
        reinterpret_cast<int*>(&shared.block)[threadIdx.x] =
            reinterpret_cast<const int*>(blocks + b)[threadIdx.x];
      if (threadIdx.x == 0) {
        shared.index = b;
        shared.behind = min(end, b + 1 < num_blocks ? blocks[b + 1].first_item : own ? work.own_items : end);
      }
      __syncthreads();
      const Geometry g(read, shared.block);
      if (threadIdx.x < g.num_queries) {
        const int row = threadIdx.x / shared.block.num_heads, head = threadIdx.x % shared.block.num_heads;
        SharedRow& place = shared.places[threadIdx.x];
        if (shared.block.rows == nullptr) {
          place = {shared.block.first_row + row, g.num_queries,
                   shared.block.tile_base + static_cast<int>(threadIdx.x)};
        } else {
          place = shared.block.rows[row];
          place.tile_base += head;
        }
      }
    }
    while (begin < shared.behind) {
      const Geometry g(read, shared.block);
      const int tile = begin - shared.block.zero_item, behind = shared.behind;
      const int num_tiles = read.num_ranks > 1  ? 1
                            : tile < g.own_tile ? min(behind - begin, g.own_tile - tile)
                                                : behind - begin;
      if (IsRead(read, g, tile)) ReadRun<T, kQueries>(read, tile, num_tiles);
      begin += num_tiles;
      __syncthreads();  // shared memory is free for the next run
    }
  }
}

// kQueries: the most that a read has.
template <class T, int kQueries>
__global__ void __launch_bounds__(kThreads, 2) FewTileKernel(const FewReads reads) {
  BeginKernel();
  const PagedRead &large = reads.read[0], &small = reads.read[reads.count - 1];
  const int num_large = reads.count > 1 ? large.work->num_items : 0, num_small = small.work->num_items;
  const int index = blockIdx.x, num_blocks = gridDim.x;
  const auto run = [&](int i) {
    return BeginOfRun(i, num_blocks, num_large, static_cast<float>(large.keys.dim), num_small,
                      static_cast<float>(small.keys.dim));
  };
  for (int item = index, done = 0; !done; item += num_blocks) {
    done = item >= num_large;
    const PagedRead& read = done ? small : large;
    const int begin = done ? run(index) : item, end = done ? run(index + 1) : item + 1;
    if (read.tile_queries == 1) {
      ReadItems<T, 1>(read, begin, end);
    } else {
      ReadItems<T, kQueries>(read, begin, end);
    }
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
constexpr int FoldParts(const PagedRead& read) { return CeilDiv(read.values.dim, kFoldColumns); }
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
  const int end = read.feedback ? g.own_tile : CeilDiv(g.horizon, kTile);
  const int first_tile = block.first_tile + chain;  // a window has one chain
  const int num_tiles = end > first_tile ? CeilDiv(end - first_tile, num_chains) : 0;
  const auto at = [&](int t) {  // in scratch, of the chain's t-th tile
    return block.tile_base + static_cast<int64_t>(first_tile + t * num_chains) * g.num_queries + i;
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
constexpr size_t TileBytes(int dim) {
  return sizeof(TileShared<T, kQueries>) + sizeof(float) * kQueries * QueryStride(dim);
}
constexpr size_t kMaxBytes = 227 << 10;  // of shared memory
static_assert(MaxFewQueries(4096) == kFewQueries && MaxFewQueries(4097) == 1);
static_assert(TileBytes<float, kFewQueries>(4096) <= kMaxBytes &&
              TileBytes<Bf16, kFewQueries>(4096) <= kMaxBytes && TileBytes<float, 1>(kMaxDim) <= kMaxBytes &&
              TileBytes<Bf16, 1>(kMaxDim) <= kMaxBytes);

template <class T, int kQueries>
void LaunchTiles(cudaStream_t stream, const FewReads& reads, int num_ctas) {
  size_t bytes = 0;
  for (int i = 0; i < reads.count; ++i) {
    const PagedRead& read = reads.read[i];
    const int dim = read.keys.dim;
    const size_t own = read.tile_queries == 1 ? TileBytes<T, 1>(dim) : TileBytes<T, kQueries>(dim);
    bytes = own > bytes ? own : bytes;
  }
  Launch(stream, dim3(num_ctas), kThreads, bytes, FewTileKernel<T, kQueries>, reads);
}

template <class T>
void LaunchReads(cudaStream_t stream, const FewReads& reads, int num_ctas) {
  int queries = 0, fold_blocks = 0;
  for (int i = 0; i < reads.count; ++i) {
    queries = reads.read[i].tile_queries > queries ? reads.read[i].tile_queries : queries;
    fold_blocks += FoldBlocks(reads.read[i]);
  }
  if (num_ctas > 0) {  // else nothing is cached yet
    const auto tiles = queries == 1   ? LaunchTiles<T, 1>
                       : queries <= 4 ? LaunchTiles<T, 4>
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
