// The read of many queries (paged_read.cu) on the tensor cores: forward attention and feedback read of
// prefill, with state in bf16. Queries and probabilities are rounded to bf16, everything is accumulated in
// float32, and the softmax goes by the same tiles and chains. The sums run in the tensor cores' order, so the
// bits are not those of the other kernels: with --batch_invariant this file is not used.
//
// The feedback heads are up to 4096 wide, so no thread block holds a row of values: as in paged_read.cu, one
// kernel leaves exp(x - m) of each tile in scratch, which stays in the L2 cache, and another multiplies it
// with the values.
//   RoundQueries   the block's queries as a bf16 panel, 64 rows whatever the heads are.
//   ScoreKernel    64 queries x 128 keys (two tiles), a warp 16 x 64, so that a row of a tile lies in 4
//   lanes.
//                  24 KiB of shared memory for 64 dimensions: 43 multiply-adds for each byte from L2.
//   ValueKernel    64 queries x 64 or 128 columns over the tiles of a chain, a warp 16 x 64.
// Copies run two stages ahead of the multiplications. Rows in shared memory are 16 bytes longer than their
// contents, so that the 8 rows of an ldmatrix lie in different banks. Method: FlashAttention-2 (Dao 2023),
// cut in two.
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/paged_read.cuh"

namespace sessa::cuda {
namespace {

constexpr int kDepth = 64;  // dimensions of a stage
constexpr int kStages = 3;
constexpr int kRowWarps = kMaxQueries / kWarpRows;
// A warp's 16 x 64 results: kColumnTiles fragments of 8 columns.
constexpr int kColumnTiles = kTile / 8;
using WarpTile = float[kColumnTiles][4];

// Grid: queries x blocks.
__global__ void __launch_bounds__(kThreads) RoundQueriesKernel(const PagedRead read) {
  BeginKernel();
  const ReadBlock block = read.blocks[blockIdx.y];
  const int i = blockIdx.x, dim = read.keys.dim, stride = RoundUp(dim, kDepth);
  const float* row = nullptr;
  if (i < block.num_rows * block.num_heads)
    row = read.q.row(block.first_row + i / block.num_heads) + (block.first_head + i % block.num_heads) * dim;
  Bf16* out =
      static_cast<Bf16*>(read.work->queries) + (static_cast<int64_t>(blockIdx.y) * kMaxQueries + i) * stride;
  for (int c = threadIdx.x; c < stride; c += kThreads)
    out[c] = RoundToBf16(row != nullptr && c < dim ? row[c] : 0.0f);
}

struct ScoreStage {
  static constexpr int kStride = kDepth + kChunk;
  alignas(16) Bf16 queries[kMaxQueries][kStride];
  alignas(16) Bf16 keys[kTensorItemTiles * kTile][kStride];
};

// A warp's scores become exp(x - m), in scratch, and its rows' m and l.
__device__ __forceinline__ void StoreTile(const PagedRead& read, const ReadWork& work, int block_index,
                                          const ReadBlock& block, const Geometry& g, int tile,
                                          int first_query, const WarpTile& scores) {
  const int64_t at = block.tile_base + static_cast<int64_t>(tile) * kMaxQueries;
  Bf16* out = reinterpret_cast<Bf16*>(work.tile_values) + at * kTile;
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // rows g and g + 8 of the fragments
    const int i = first_query + FragmentRow(2 * half);
    const int visible = block.start + i / block.num_heads + (read.feedback ? 0 : 1) - tile * kTile;
    float m = -INFINITY, l = 0;
    float p[kColumnTiles][2];
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        p[j][e] = FragmentColumn(j, e) < visible ? scores[j][2 * half + e] * read.scale : -INFINITY;
        m = fmaxf(m, p[j][e]);
      }
    }
    m = RowMax(m);
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        p[j][e] = FragmentColumn(j, e) < visible ? expf(p[j][e] - m) : 0.0f;
        l += p[j][e];
      }
    }
    l = RowSum(l);
    if (i >= g.num_queries) continue;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      const int column = FragmentColumn(j, 0);
      *reinterpret_cast<unsigned*>(out + i * kTile + column) = PackBf16(p[j][0], p[j][1]);
      if (tile == g.own_tile) {  // the solve reads these, in float32
        float* own = work.own_p + (static_cast<int64_t>(block_index) * kMaxQueries + i) * kTile + column;
        own[0] = p[j][0], own[1] = p[j][1];
      }
    }
    if (threadIdx.x % 4 == 0) {
      work.tile_stats[2 * (at + i)] = m;
      work.tile_stats[2 * (at + i) + 1] = l;
    }
  }
}

// Grid: any number of blocks, which share the work items: pairs of tiles.
__global__ void __launch_bounds__(kThreads, 2) ScoreKernel(const PagedRead read) {
  BeginKernel();
  auto* stages = static_cast<ScoreStage*>(DynamicShared());
  const ReadWork work = *read.work;
  const int dim = read.keys.dim, stride = RoundUp(dim, kDepth), num_stages = stride / kDepth;
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes;
  const int warp_row = warp % kRowWarps * kWarpRows, warp_tile = warp / kRowWarps;
  // A thread copies the same 16 bytes of every 32nd row.
  const int chunk = threadIdx.x % 8 * kChunk, row = threadIdx.x / 8;
  constexpr int kCopies = kTensorItemTiles * kTile / 32;
  for (int item = blockIdx.x; item < work.num_items; item += gridDim.x) {
    const int block_index = BlockOf(read, item);
    const ReadBlock block = read.blocks[block_index];
    const Geometry g(read, block);
    const int first_tile = (item - block.first_item) * kTensorItemTiles;
    const Bf16* queries = static_cast<const Bf16*>(work.queries) +
                          (static_cast<int64_t>(block_index) * kMaxQueries + row) * stride + chunk;
    const Bf16* keys[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int position = first_tile * kTile + row + 32 * i;
      keys[i] = position < g.horizon && IsRead(read, g, position / kTile)
                    ? VectorAt<Bf16>(read.keys, block.pages, block.kv, position) + chunk
                    : nullptr;
    }
    const auto load = [&](int s) {
      if (s < num_stages) {
        ScoreStage& stage = stages[s % kStages];
        const int k = s * kDepth;
#pragma unroll
        for (int i = 0; i < kMaxQueries / 32; ++i)
          CopyAsync(&stage.queries[row + 32 * i][chunk], queries + 32 * i * stride + k, true);
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
          const bool valid = keys[i] != nullptr && k + chunk < Padded(dim);
          CopyAsync(&stage.keys[row + 32 * i][chunk], valid ? keys[i] + k : queries, valid);
        }
      }
      CommitCopies();
    };
    WarpTile scores = {};
    for (int s = 0; s < kStages - 1; ++s) load(s);
    for (int s = 0; s < num_stages; ++s) {
      WaitForCopies<kStages - 2>();
      __syncthreads();  // stage s is there, and everyone is done with the one that is filled next
      load(s + kStages - 1);
      const ScoreStage& stage = stages[s % kStages];
      MultiplyTiles<kDepth>(scores, stage.queries + warp_row, [&](unsigned(&y)[4], int k, int n) {
        // Keys are the columns of B: rows of shared memory, k across.
        LoadMatrices(y, &stage.keys[warp_tile * kTile + n + lane % 8 + lane / 16 * 8][k + lane / 8 % 2 * 8]);
      });
    }
    if (IsRead(read, g, first_tile + warp_tile))
      StoreTile(read, work, block_index, block, g, first_tile + warp_tile, warp_row, scores);
    __syncthreads();  // shared memory is free for the next item
  }
}

template <int kColumnWarps>
struct ValueShared {
  struct Stage {
    alignas(16) Bf16 p[kMaxQueries][kTile + kChunk];
    alignas(16) Bf16 values[kTile][kColumnWarps * 64 + kChunk];
  };
  Stage stages[kStages];
  const Bf16* rows[kStages][kTile];  // a token's values, or null when they are not in the cache
  // Of every other tile.
  float old_scale[2][kMaxQueries], tile_scale[2][kMaxQueries];
};

// Grid: columns in parts of 64 * kColumnWarps x chains of this rank x blocks.
template <int kColumnWarps>
__global__ void __launch_bounds__(kColumnWarps* kRowWarps* kWarpLanes, 4 / kColumnWarps)
    TensorValueKernel(const PagedRead read) {
  BeginKernel();
  using Shared = ValueShared<kColumnWarps>;
  constexpr int kBlockThreads = kColumnWarps * kRowWarps * kWarpLanes, kColumns = kColumnWarps * 64;
  auto& shared = *static_cast<Shared*>(DynamicShared());
  const ReadWork& work = *read.work;
  const ReadBlock& block = read.blocks[blockIdx.z];
  const Geometry g(read, block);
  const int thread = threadIdx.x, lane = thread % kWarpLanes, warp = thread / kWarpLanes;
  const int warp_row = warp % kRowWarps * kWarpRows, warp_column = warp / kRowWarps * 64;
  const int first_column = blockIdx.x * kColumns, dim = read.values.dim;
  const int chain = blockIdx.y * read.num_ranks + read.rank;
  const int end = (g.horizon + kTile - 1) / kTile;
  const int num_tiles = end > chain ? (end - chain + read.num_chains - 1) / read.num_chains : 0;
  const auto tile_at = [&](int n) { return chain + n * read.num_chains; };
  const auto find_rows = [&](int n) {
    if (thread >= kTile || n >= num_tiles) return;
    const int tile = tile_at(n), position = tile * kTile + thread;
    shared.rows[n % kStages][thread] = position < (tile == g.own_tile ? block.start : g.horizon)
                                           ? VectorAt<Bf16>(read.values, block.pages, block.kv, position)
                                           : nullptr;
  };
  // Requires its rows to be found, and a barrier since.
  const auto load = [&](int n) {
    if (n < num_tiles) {
      typename Shared::Stage& stage = shared.stages[n % kStages];
      const Bf16* p = reinterpret_cast<const Bf16*>(work.tile_values) +
                      (block.tile_base + static_cast<int64_t>(tile_at(n)) * kMaxQueries) * kTile;
#pragma unroll
      for (int i = thread; i < kMaxQueries * kTile / kChunk; i += kBlockThreads) {
        const int query = i / (kTile / kChunk), c = i % (kTile / kChunk) * kChunk;
        CopyAsync(&stage.p[query][c], p + query * kTile + c, query < g.num_queries);
      }
#pragma unroll
      for (int i = thread; i < kTile * kColumns / kChunk; i += kBlockThreads) {
        const int j = i / (kColumns / kChunk), c = i % (kColumns / kChunk) * kChunk;
        const Bf16* row = shared.rows[n % kStages][j];
        const bool valid = row != nullptr && first_column + c < Padded(dim);
        CopyAsync(&stage.values[j][c], valid ? row + first_column + c : p, valid);
      }
    }
    CommitCopies();
  };
  float max = -INFINITY, sum = 0;  // of query `thread`
  WarpTile acc = {};
  static_assert(kStages == 3, "two tiles ahead");
  find_rows(0);
  find_rows(1);
  __syncthreads();
  load(0);
  load(1);
  for (int n = 0; n < num_tiles; ++n) {
    const int tile = tile_at(n);
    float *old_scale = shared.old_scale[n % 2], *tile_scale = shared.tile_scale[n % 2];
    if (thread < kMaxQueries) {
      Rescale r = {max, 1.0f, 0.0f};
      if (thread < g.num_queries) {
        const float* stats =
            work.tile_stats + 2 * (block.tile_base + static_cast<int64_t>(tile) * kMaxQueries + thread);
        r = Extend(max, stats[0]);
        sum = fmaf(sum, r.old, stats[1] * r.tile);
      }
      max = r.max;
      old_scale[thread] = r.old;
      tile_scale[thread] = r.tile;
    }
    find_rows(n + 2);
    WaitForCopies<1>();
    __syncthreads();
    load(n + 2);
    if (tile == g.own_tile && blockIdx.x == 0) {
      const float* own = work.own_p + static_cast<int64_t>(blockIdx.z) * kMaxQueries * kTile;
      for (int i = thread; i < g.num_queries * kTile; i += kBlockThreads)
        read.p[static_cast<int64_t>(block.wave_row) * kTile + i] = own[i] * tile_scale[i / kTile];
    }
    const typename Shared::Stage& stage = shared.stages[n % kStages];
    // Half of the columns at a time: 32 registers of results and 16 of a tile's leave room for two blocks of
    // 256.
    constexpr int kHalfTiles = kColumnTiles / 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float a[kHalfTiles][4] = {};
      MultiplyTiles<kTile>(a, stage.p + warp_row, [&](unsigned(&y)[4], int k, int column) {
        // Tokens are the rows of B, as in shared memory.
        LoadMatricesTransposed(
            y, &stage.values[k + lane % 16][warp_column + half * 32 + column + lane / 16 * 8]);
      });
#pragma unroll
      for (int j = 0; j < kHalfTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int query = warp_row + FragmentRow(e);
          float& x = acc[half * kHalfTiles + j][e];
          x = fmaf(x, old_scale[query], a[j][e] * tile_scale[query]);
        }
      }
    }
  }
  __syncthreads();
  if (thread < g.num_queries) {
    shared.tile_scale[0][thread] = sum;
    if (read.feedback && blockIdx.x == 0) {
      read.max[PartialRow(read, block, chain, thread)] = max;
      read.sum[PartialRow(read, block, chain, thread)] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int query = warp_row + FragmentRow(e), column = first_column + warp_column + FragmentColumn(j, e);
      if (query >= g.num_queries || column >= dim) continue;
      if (read.feedback) {
        read.acc[PartialRow(read, block, chain, query) * read.width + column] = acc[j][e];
      } else {
        WriteForward(read, block, query, column, acc[j][e], shared.tile_scale[0][query]);
      }
    }
  }
}

template <int kColumnWarps>
void LaunchValues(cudaStream_t stream, const PagedRead& read) {
  constexpr int kColumns = kColumnWarps * 64;
  const dim3 grid((read.values.dim + kColumns - 1) / kColumns, read.num_chains / read.num_ranks,
                  read.num_blocks);
  Launch(stream, grid, kColumnWarps * kRowWarps * kWarpLanes, sizeof(ValueShared<kColumnWarps>),
         TensorValueKernel<kColumnWarps>, read);
}

}  // namespace

int TensorPanelStride(int dim) { return RoundUp(dim, kDepth); }

void ReadManyQueriesTensor(cudaStream_t stream, const PagedRead& read, int num_ctas) {
  if (read.num_blocks == 0) return;
  Launch(stream, dim3(kMaxQueries, read.num_blocks), kThreads, 0, RoundQueriesKernel, read);
  if (num_ctas > 0) Launch(stream, dim3(num_ctas), kThreads, kStages * sizeof(ScoreStage), ScoreKernel, read);
  if (read.values.dim <= 64) {
    LaunchValues<1>(stream, read);
  } else {
    LaunchValues<2>(stream, read);
  }
}

}  // namespace sessa::cuda
