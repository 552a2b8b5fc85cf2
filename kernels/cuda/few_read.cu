// Attention over pages for few queries (decode): one or two reads (kernels.h, PagedRead) in two launches, of
// which this is the first.
//
// FewTileKernel: of a tile of 64 tokens a thread block leaves the softmax (m, l) and the weighted values in
// scratch: 1/16 of the 4 bytes that it reads for each token and dimension in bf16. Keys, in slices of 256
// bytes a token, and then values, 32 tokens by 512 bytes, come through one ring of five stages: four of them,
// 64 KiB, are on their way to a block, and two blocks run on a multiprocessor. A lone block then gets what a
// multiprocessor can take (about 64 KiB in a latency of 0.8 us), which is what a short context needs: 2048
// tokens are 32 tiles of the feedback, for 132 multiprocessors. The tiles of forward attention are small,
// 16 KiB: a block reads a run of neighbours without a pause. Of int8 state a stage has 256 columns of all the
// tile's keys or values, and their four exponents. Grid: any number of blocks (BeginOfRun).
//
// Sequences that begin with the same pages read them together (kernels/shared_reads.h): a tile of theirs is
// an item of its own, with a row of each as its queries, and leaves its results where each row's fold finds
// those of its own tiles. So a row has the same bits, whoever shares with it.
//
// few_fold.cu then folds the tiles of a chain.
//
// All sums run as in paged_read.cu, so prefill by float32 and decode give the same bits. Method: split
// softmax (Milakov and Gimelshein 2018; Flash-Decoding, Dao et al. 2023).
#include "kernels/cuda/dot_tile.cuh"
#include "kernels/cuda/few_read.cuh"

namespace sessa::cuda {
namespace {

// While a tile is computed with, stages of the next two are on their way, and the rows of a third are looked
// up.
constexpr int kStages = 5, kRowSets = 4;

template <class T>
struct TileShape {
  static constexpr int kChunk = 16 / sizeof(T);   // elements of a copy
  static constexpr int kDepth = 256 / sizeof(T);  // dimensions of a stage of keys
  static constexpr int kColumnBits = sizeof(T) == 4 ? 7 : 8;
  static constexpr int kColumns = 1 << kColumnBits;  // of a stage of values
  static constexpr int kParts = kIsInt8<T> ? 1 : 2;  // of a tile's values
  static constexpr int kTokens = kTile / kParts;     // of a stage of values
};

// Of int8, the exponents of a stage's groups of columns, as its keys or values have them.
template <class T>
struct StageExponents {};
template <>
struct StageExponents<Int8> {
  alignas(16) Int8 exponents[TileShape<Int8>::kDepth / kStateGroup][kTile];
};
static_assert(TileShape<Int8>::kDepth == TileShape<Int8>::kColumns);
// The queries follow: [QueryStride(dim) / 4][kQueries][4] floats.
template <class T, int kQueries>
struct TileShared {
  using Shape = TileShape<T>;
  struct Stage : StageExponents<T> {
    union {
      alignas(16) T keys[kTile][Shape::kDepth + Shape::kChunk];  // neighbours in different banks
      alignas(16) T values[Shape::kTokens][Shape::kColumns];
    };
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
            stages = key_stages + (own ? 0 : Shape::kParts * CeilDiv(padded, Shape::kColumns));
  struct {
    int tile, stage, slot;
  } loaded = {0, 0, 0};
  const auto copy_exponents = [&](const PagedVectors& from, int part, auto& stage, const auto& vector_of) {
    if constexpr (kIsInt8<T>) {
      constexpr int kGroups = Shape::kDepth / kStateGroup;
      CopyExponents<kGroups>(from, part * kGroups, g.horizon - (first_tile + loaded.tile) * kTile,
                             stage.exponents, vector_of);
    }
  };
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
      copy_exponents(read.keys, loaded.stage, stage, [&](int j) { return keys + rows[j]; });
    } else {
      constexpr int kChunks = Shape::kColumns / Shape::kChunk;
      const int part = loaded.stage - key_stages, chunk = thread % kChunks * Shape::kChunk,
                column = part / Shape::kParts * Shape::kColumns + chunk;
      rows += part % Shape::kParts * Shape::kTokens;
#pragma unroll 1
      for (int j = thread / kChunks; j < Shape::kTokens; j += kThreads / kChunks) {
        if (rows[j] >= 0 && column < padded)
          CopyAsync(&stage.values[j][chunk], values + rows[j] + column, true);
      }
      copy_exponents(read.values, part, stage, [&](int j) { return values + rows[j]; });
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
                ? read.q.row(shared.places[query].row)[(block.first_head + query % block.num_heads) * dim + k]
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
        constexpr int kLoad = kIsInt8<T> ? 16 : 8;  // eight lanes reach all banks with 16 bytes each
#pragma unroll(kQueries > 1 ? 1 : 2)
        for (int k = k0; k < k0 + 16; k += kLoad) {
          float4 b[kLoad / 4];
          if constexpr (kIsInt8<T>) {
            Load16(&stage.keys[key][k], b);
            const float scale = ScaleOf(stage.exponents[k / kStateGroup][key]);
#pragma unroll
            for (float4& y : b) y = Times(y, scale);
          } else {
            Load8(&stage.keys[key][k], b);
          }
#pragma unroll
          for (int i = 0; i < kLoad / 4; ++i) {
#pragma unroll
            for (int q = 0; q < kQueries; ++q) {
              const float4 a = Load4(queries + (first + k + 4 * i) * kQueries + q * 4);
              x[q][0] = fmaf(a.w, b[i].w, fmaf(a.z, b[i].z, fmaf(a.y, b[i].y, fmaf(a.x, b[i].x, x[q][0]))));
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
      const int part = s - key_stages, first = part % Shape::kParts * Shape::kTokens;
      const int groups = kThreads >> column_bits, first_query = thread >> column_bits,
                column = thread & ((1 << column_bits) - 1);
      const int num = min(Shape::kTokens, g.horizon - tile * kTile - first);
      const auto value_at = [&](int j) {
        float v = ToFloat(stage.values[j][column]);
        if constexpr (kIsInt8<T>) v *= ScaleOf(stage.exponents[column / kStateGroup][j]);
        return v;
      };
      int j = 0;
#pragma unroll(kQueries > 1 ? 1 : 2)
      for (; j + 4 <= num; j += 4) {
        float v[4];
#pragma unroll
        for (int t = 0; t < 4; ++t) v[t] = value_at(j + t);
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
          x[q][0] = fmaf(p[query][first + j], value_at(j), x[q][0]);
        }
      }
      if (part % Shape::kParts == Shape::kParts - 1) {
        const int at_column = (part / Shape::kParts << column_bits) + column;
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

template <class T, int kQueries>
constexpr size_t TileBytes(int dim) {
  return sizeof(TileShared<T, kQueries>) + sizeof(float) * kQueries * QueryStride(dim);
}
constexpr size_t kMaxBytes = 227 << 10;  // of shared memory
static_assert(MaxFewQueries(4096) == kFewQueries && MaxFewQueries(4097) == 1);
template <class T>
constexpr bool kFits = TileBytes<T, kFewQueries>(4096) <= kMaxBytes&& TileBytes<T, 1>(kMaxDim) <= kMaxBytes;
static_assert(kFits<float> && kFits<Bf16> && kFits<Int8>);

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
  int queries = 0;
  for (int i = 0; i < reads.count; ++i)
    queries = reads.read[i].tile_queries > queries ? reads.read[i].tile_queries : queries;
  if (num_ctas > 0) {  // else nothing is cached yet
    const auto tiles = queries == 1   ? LaunchTiles<T, 1>
                       : queries <= 4 ? LaunchTiles<T, 4>
                                      : LaunchTiles<T, kFewQueries>;
    tiles(stream, reads, num_ctas);
  }
}

}  // namespace

void ReadFewQueries(cudaStream_t stream, const FewReads& reads, int num_ctas) {
  const DType dtype = reads.read[0].keys.dtype;
  const auto launch = dtype == DType::kF32  ? LaunchReads<float>
                      : dtype == DType::kI8 ? LaunchReads<Int8>
                                            : LaunchReads<Bf16>;
  launch(stream, reads, num_ctas);
  FoldTiles(stream, reads);
}

}  // namespace sessa::cuda
