// The reads of panel.h: weights of a pass, then weighted values.
//
// RoundPanelsKernel: queries and the blocks' own keys as bf16 panels. Grid: panel rows x (queries, keys).
//
// ScoreKernel: 128 queries x 256 keys, two warpgroups of 64 x 256, 43 multiply-adds for each byte from L2.
// Grid: query tiles x key tiles of all blocks.
//
// ValueKernel: 128 queries x 256 columns over the keys of a split, the weights through registers, where they
// are brought to one power of two. Grid: column tiles x splits x query tiles.
//
// Both: stages of 64 columns or keys, 48 KiB, copied two ahead into four places; a stage is 1024 cycles of
// the tensor cores, in which 48 KiB come in and 80 (64) KiB are read from shared memory at 128 bytes a cycle.
#include "kernels/cuda/panel.cuh"

namespace sessa::cuda {
namespace {

constexpr int kStages = 4, kAhead = 2;
constexpr int kBlockThreads = 2 * kWarpgroup;
constexpr int kColumns = kPanelColumns;
constexpr int kFragments = kPanelKeys / 8;
static_assert(kColumns == kPanelKeys && kBlockThreads == kThreads);

__global__ void __launch_bounds__(kThreads) RoundPanelsKernel(const PanelRead read) {
  BeginKernel();
  const int64_t panel_row = read.blocks[0].panel_row + blockIdx.x;
  const PanelBlock& block =
      read.blocks[PanelBlockOf(read.blocks, read.num_blocks, &PanelBlock::panel_row, panel_row)];
  const int i = static_cast<int>(panel_row - block.panel_row), dim = read.keys.dim, stride = PanelStride(dim);
  const bool is_key = blockIdx.y == 1;
  const float* row = nullptr;
  if (i < NumQueries(block)) {
    row = (is_key ? read.k : read.q).row(block.first_row + i / block.num_heads) +
          (block.first_head + i % block.num_heads) * dim;
  }
  Bf16* out = static_cast<Bf16*>(is_key ? read.scratch.keys : read.scratch.queries) + panel_row * stride;
  for (int c = threadIdx.x; c < stride; c += kThreads)
    out[c] = RoundToBf16(row != nullptr && c < dim ? row[c] : 0.0f);
}

// The first position of a softmax tile of this rank, of its own tiles the n-th.
__device__ __forceinline__ int TilePosition(const PanelRead& read, int n) {
  const int share = kChains / read.num_ranks;
  return (read.num_ranks == 1 ? n : n / share * kChains + read.rank + n % share * read.num_ranks) * kTile;
}

struct ScoreShared {
  struct Stage {
    Bf16 queries[kPanelQueries * kPanelDepth];  // operands of 128-byte rows
    Bf16 keys[kPanelKeys * kPanelDepth];
  };
  union {
    Stage stages[kStages];
    // Of each warp, its rows' weights. 16 bytes longer than their contents: 8 rows lie in different banks.
    Bf16 weights[kBlockThreads / kWarpLanes][kWarpRows][kPanelKeys + kChunk];
  };
  const Bf16* keys[kPanelKeys];  // in their pages, or null
};

// Whether all rows of a warp see all keys of the tile, which is so but at the ends of contexts and of blocks:
// then there is nothing to mask, in a quarter of the instructions.
template <bool kOwn>
__device__ __forceinline__ bool SeesAll(const PanelRead& read, const PanelBlock& block, int first_query,
                                        int key_tile) {
  if (kOwn || first_query + kWarpRows > NumQueries(block)) return false;
  const int visible =
      read.feedback ? block.start : block.start + first_query / block.num_heads + 1;  // of the first
  const int last_key = (block.first_tile + key_tile + 1) * kPanelKeys - 1;
  return TilePosition(read, last_key / kTile) + kTile <= visible;
}

// A warp's scores (16 rows from `first_query` on) become weights; they and their rows' m and l are stored.
// kMask: some do not see all keys.
template <bool kOwn, bool kMask>
__device__ __forceinline__ void StoreWeights(const PanelRead& read, const PanelBlock& block, int first_query,
                                             int key_tile, float (&x)[kFragments][4],
                                             Bf16 (&staged)[kWarpRows][kPanelKeys + kChunk]) {
  const int lane = threadIdx.x % kWarpLanes, padded = PaddedQueries(block);
  const int first_key = (block.first_tile + key_tile) * kPanelKeys;
  constexpr int kGroups = kPanelKeys / kTile, kGroupFragments = kTile / 8;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = FragmentRow(2 * half), query = first_query + row;
    int visible = 0;  // keys, or positions
    if (query < NumQueries(block))
      visible = kOwn ? query : read.feedback ? block.start : block.start + query / block.num_heads + 1;
    float m = -INFINITY, l = 0;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const int key = first_key + group * kTile;
      const int limit = visible - (kOwn ? key : TilePosition(read, key / kTile));
#pragma unroll
      for (int j = group * kGroupFragments; j < (group + 1) * kGroupFragments; ++j) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          x[j][e] = !kMask || FragmentColumn(j - group * kGroupFragments, e) < limit ? x[j][e] * read.scale
                                                                                     : -INFINITY;
          m = fmaxf(m, x[j][e]);
        }
      }
    }
    m = ceilf(RowMax(m));
#pragma unroll
    for (int j = 0; j < kFragments; ++j) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        x[j][e] = kMask && x[j][e] == -INFINITY ? 0.0f : Exp2(x[j][e] - m);
        l += x[j][e];
      }
      *reinterpret_cast<unsigned*>(&staged[row][FragmentColumn(j, 0)]) =
          PackBf16(x[j][2 * half], x[j][2 * half + 1]);
    }
    l = RowSum(l);
    float* stats = (kOwn ? read.scratch.own_stats : read.scratch.stats) + block.stats +
                   (static_cast<int64_t>(key_tile) * padded + query) * 2;
    if (lane % 4 == 0) *reinterpret_cast<float2*>(stats) = {m, l};
    if constexpr (kOwn) {
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {  // the solve reads these in float32
        if (first_key + group * kTile != query / kSolveRows * kSolveRows) continue;
        float* diagonal = read.scratch.diagonal + (block.panel_row + query) * kSolveRows;
#pragma unroll
        for (int j = 0; j < kGroupFragments; ++j) {
          const float(&pair)[4] = x[group * kGroupFragments + j];
          *reinterpret_cast<float2*>(diagonal + FragmentColumn(j, 0)) = {pair[2 * half], pair[2 * half + 1]};
        }
      }
    }
  }
  __syncwarp();
  const int64_t row_size = static_cast<int64_t>(block.num_tiles) * kPanelKeys;
  Bf16* out = static_cast<Bf16*>(kOwn ? read.scratch.own_weights : read.scratch.weights) + block.weights +
              first_query * row_size + key_tile * kPanelKeys + lane * kChunk;
  for (int row = 0; row < kWarpRows; ++row)
    *reinterpret_cast<uint4*>(out + row * row_size) =
        *reinterpret_cast<const uint4*>(&staged[row][lane * kChunk]);
}

template <bool kOwn>
__global__ void __launch_bounds__(kBlockThreads, 1) ScoreKernel(const PanelRead read) {
  BeginKernel();
  auto& shared = *static_cast<ScoreShared*>(DynamicShared());
  const int item = blockIdx.x;
  const PanelBlock block =
      read.blocks[PanelBlockOf(read.blocks, read.num_blocks, &PanelBlock::first_item, item)];
  // Neighbours share their keys.
  const int query_tiles = PaddedQueries(block) / kPanelQueries;
  const int query_tile = (item - block.first_item) % query_tiles,
            key_tile = (item - block.first_item) / query_tiles;
  if (kOwn && key_tile * kPanelKeys >= (query_tile + 1) * kPanelQueries) return;  // nobody sees these
  const int thread = threadIdx.x, warpgroup = thread / kWarpgroup, warp = thread / kWarpLanes;
  const int dim = read.keys.dim, stride = PanelStride(dim), num_stages = stride / kPanelDepth;
  // A thread copies the same 16 bytes of every 32nd row.
  const int chunk = thread % 8 * kChunk, row = thread / 8;
  constexpr int kRowStep = kBlockThreads / 8, kKeyCopies = kPanelKeys / kRowStep;
  const Bf16* queries = static_cast<const Bf16*>(read.scratch.queries) +
                        (block.panel_row + query_tile * kPanelQueries + row) * stride + chunk;
  const int first_key = (block.first_tile + key_tile) * kPanelKeys;
  if (!kOwn) {  // a page look-up is two divisions and a load: one a thread, not eight after another
    static_assert(kPanelKeys == kBlockThreads);
    const int key = first_key + thread, position = TilePosition(read, key / kTile) + key % kTile;
    shared.keys[thread] = position < block.start + (read.feedback ? 0 : block.num_rows)
                              ? VectorAt<Bf16>(read.keys, block.pages, block.kv, position)
                              : nullptr;
    __syncthreads();
  }
  const Bf16* keys[kKeyCopies];
#pragma unroll
  for (int i = 0; i < kKeyCopies; ++i) {
    const int key = row + i * kRowStep;
    if (kOwn) {
      keys[i] = first_key + key < block.num_rows ? static_cast<const Bf16*>(read.scratch.keys) +
                                                       (block.panel_row + first_key + key) * stride
                                                 : nullptr;
    } else {
      keys[i] = shared.keys[key];
    }
    if (keys[i] != nullptr) keys[i] += chunk;
  }
  const auto load = [&](int s) {
    if (s < num_stages) {
      ScoreShared::Stage& stage = shared.stages[s % kStages];
      const int k = s * kPanelDepth;
#pragma unroll
      for (int i = 0; i < kPanelQueries / kRowStep; ++i)
        CopyAsync(stage.queries + SwizzledOffset<128>(row + i * kRowStep, chunk),
                  queries + i * kRowStep * stride + k, true);
#pragma unroll
      for (int i = 0; i < kKeyCopies; ++i) {
        const bool valid = keys[i] != nullptr && k + chunk < Padded(dim);
        CopyAsync(stage.keys + SwizzledOffset<128>(row + i * kRowStep, chunk), valid ? keys[i] + k : queries,
                  valid);
      }
    }
    CommitCopies();
  };
  float scores[kFragments][4] = {};
  for (int s = 0; s < kAhead; ++s) load(s);
  for (int s = 0; s < num_stages; ++s) {
    WaitForCopies<kAhead - 1>();
    FenceOperands();
    // Stage s is there, and everyone has waited for the products of stage s - 2, whose place the next copies
    // take: they start before the wait for stage s - 1, which is as long as a stage.
    __syncthreads();
    const ScoreShared::Stage& stage = shared.stages[s % kStages];
    BeginProducts(scores);
#pragma unroll
    for (int k = 0; k < kPanelDepth; k += 16) {
      Multiply<kPanelKeys, false>(
          scores, DescribeKMajor<128>(stage.queries + warpgroup * kWarpgroupRows * kPanelDepth + k),
          DescribeKMajor<128>(stage.keys + k));
    }
    CommitProducts();
    load(s + kAhead);
    WaitForProducts<1>();
  }
  WaitForProducts<0>(scores);
  __syncthreads();  // the weights take the stages' place
  const int first_query = query_tile * kPanelQueries + warp * kWarpRows;
  if (SeesAll<kOwn>(read, block, first_query, key_tile)) {
    StoreWeights<kOwn, false>(read, block, first_query, key_tile, scores, shared.weights[warp]);
  } else {
    StoreWeights<kOwn, true>(read, block, first_query, key_tile, scores, shared.weights[warp]);
  }
}

struct ValueShared {
  struct Stage {
    Bf16 weights[kPanelQueries * kPanelDepth];     // an operand of 128-byte rows
    Bf16 values[kColumns / 64][kPanelDepth * 64];  // operands of 64 columns, a row a key
  };
  Stage stages[kStages];
  const Bf16* rows[kStages][kPanelDepth];  // a key's values, or null
  // Of each query: of both halves of the threads, then of the split so far.
  float max[2][kPanelQueries], sum[2][kPanelQueries];
  float new_max[kPanelQueries], shrink[kPanelQueries], share[kPanelQueries];
};

// The running maximum and sum of a split after this pass, a thread for each query and half of the tiles.
__device__ __forceinline__ void ExtendSplit(const PanelRead& read, const PanelBlock& block, int query_tile,
                                            int begin, int end, ValueShared& shared) {
  const int thread = threadIdx.x, i = thread % kPanelQueries, half = thread / kPanelQueries;
  const int query = query_tile * kPanelQueries + i, padded = PaddedQueries(block);
  const float2* stats = reinterpret_cast<const float2*>(read.scratch.stats + block.stats) + query;
  float max = -INFINITY, sum = 0;
#pragma unroll 4
  for (int t = begin + half; t < end; t += 2) {
    const float2 tile = stats[static_cast<int64_t>(t) * padded];
    const float top = fmaxf(max, tile.x);
    sum = fmaf(sum, Shrink(max, top), tile.y * Shrink(tile.x, top));
    max = top;
  }
  shared.max[half][i] = max, shared.sum[half][i] = sum;
  __syncthreads();
  if (half == 1) return;
  const auto running = [&](int pass, int split) {
    return reinterpret_cast<float2*>(read.scratch.running) +
           (static_cast<int64_t>(pass % 2) * kChains + split) * read.panel_rows + block.panel_row + query;
  };
  const int split = blockIdx.y;
  const float2 before = block.pass == 0 ? float2{-INFINITY, 0} : *running(block.pass - 1, split);
  const float top = fmaxf(before.x, fmaxf(max, shared.max[1][i]));
  const float shrink = Shrink(before.x, top);
  const float total =
      fmaf(before.y, shrink, fmaf(sum, Shrink(max, top), shared.sum[1][i] * Shrink(shared.max[1][i], top)));
  shared.new_max[i] = top;
  shared.shrink[i] = shrink;
  shared.share[i] = total > 0 ? 1 / total : 0.0f;
  if (blockIdx.x != 0) return;
  *running(block.pass, split) = {top, total};
  if (!read.feedback || !block.is_last_pass || query >= NumQueries(block)) return;
  const auto put = [&](int n, float m, float l) {
    const int64_t at =
        static_cast<int64_t>(n * read.num_ranks + read.rank) * read.partial_rows + block.wave_row + query;
    read.max[at] = m;
    read.sum[at] = l;
  };
  put(split, top, total);
  for (int n = block.num_splits; split == 0 && n < kChains / read.num_ranks; ++n) put(n, -INFINITY, 0);
}

__global__ void __launch_bounds__(kBlockThreads, 1) ValueKernel(const PanelRead read) {
  BeginKernel();
  auto& shared = *static_cast<ValueShared*>(DynamicShared());
  const int z = blockIdx.z, split = blockIdx.y;
  const PanelBlock block =
      read.blocks[PanelBlockOf(read.blocks, read.num_blocks, &PanelBlock::first_query_tile, z)];
  if (split >= block.num_splits) return;
  const int query_tile = z - block.first_query_tile;
  const int thread = threadIdx.x, warp = thread / kWarpLanes;
  const int first_column = blockIdx.x * kColumns, dim = read.values.dim, padded = PaddedQueries(block);
  const int begin = block.num_tiles * split / block.num_splits,
            end = block.num_tiles * (split + 1) / block.num_splits;
  constexpr int kTileStages = kPanelKeys / kPanelDepth;
  const int num_stages = (end - begin) * kTileStages;
  const int horizon = block.start + (read.feedback ? 0 : block.num_rows);
  // This thread's key of a stage. Its page is fetched a stage before what it says is stored: nobody waits.
  struct Key {
    int position, page;  // position: negative, there is none
  };
  const auto key_of = [&](int s) -> Key {
    if (thread >= kPanelDepth || s >= num_stages) return {-1, 0};
    const int key = (block.first_tile + begin) * kPanelKeys + s * kPanelDepth + thread;
    const int position = TilePosition(read, key / kTile) + key % kTile;
    return position < horizon ? Key{position, PageOf(read.values, block.pages, position)} : Key{-1, 0};
  };
  const auto store_row = [&](int s, Key key) {
    if (thread >= kPanelDepth) return;
    shared.rows[s % kStages][thread] =
        key.position >= 0 ? VectorInPage<Bf16>(read.values, key.page, block.kv, key.position) : nullptr;
  };
  const int64_t row_size = static_cast<int64_t>(block.num_tiles) * kPanelKeys;
  const Bf16* weights = static_cast<const Bf16*>(read.scratch.weights) + block.weights +
                        (query_tile * kPanelQueries + thread / 8) * row_size + begin * kPanelKeys +
                        thread % 8 * kChunk;
  // Requires its rows to be found, and a barrier since.
  const auto load = [&](int s) {
    if (s < num_stages) {
      ValueShared::Stage& stage = shared.stages[s % kStages];
      constexpr int kRowStep = kBlockThreads / 8, kKeyStep = kBlockThreads / (kColumns / kChunk);
#pragma unroll
      for (int i = 0; i < kPanelQueries / kRowStep; ++i)
        CopyAsync(stage.weights + SwizzledOffset<128>(thread / 8 + i * kRowStep, thread % 8 * kChunk),
                  weights + i * kRowStep * row_size + s * kPanelDepth, true);
      const int c = thread % (kColumns / kChunk) * kChunk, first_key = thread / (kColumns / kChunk);
      const Bf16* rows[kPanelDepth / kKeyStep];  // read together: the compiler moves no read before a copy
#pragma unroll
      for (int i = 0; i < kPanelDepth / kKeyStep; ++i)
        rows[i] = shared.rows[s % kStages][first_key + i * kKeyStep];
#pragma unroll
      for (int i = 0; i < kPanelDepth / kKeyStep; ++i) {
        const bool valid = rows[i] != nullptr && first_column + c < Padded(dim);
        CopyAsync(stage.values[c / 64] + SwizzledOffset<128>(first_key + i * kKeyStep, c % 64),
                  valid ? rows[i] + first_column + c : weights, valid);
      }
    }
    CommitCopies();
  };
  for (int s = 0; s <= kAhead; ++s) store_row(s, key_of(s));
  Key next_key = key_of(kAhead + 1);
  __syncthreads();
  for (int s = 0; s < kAhead; ++s) load(s);
  ExtendSplit(read, block, query_tile, begin, end, shared);
  __syncthreads();
  const int warp_row = warp * kWarpRows;
  const float2* stats = reinterpret_cast<const float2*>(read.scratch.stats + block.stats) +
                        query_tile * kPanelQueries + warp_row;
  unsigned powers[2] = {};
  float tile_max[2];  // of the next key tile, fetched while this one is computed with
  const auto find_max = [&](int tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (tile < end) tile_max[half] = stats[static_cast<int64_t>(tile) * padded + FragmentRow(2 * half)].x;
  };
  float acc[kFragments][4] = {};
  // The products of a stage run until those of the next are under way: each has fragments of its own.
  const auto multiply = [&](int s, unsigned(&a)[kPanelDepth / 16][4]) {
    WaitForCopies<kAhead - 1>();
    FenceOperands();
    __syncthreads();  // stage s is there, and everyone has waited for the products of stage s - 2
    const ValueShared::Stage& stage = shared.stages[s % kStages];
    LoadWeights(a, stage.weights, warp_row, powers);
    BeginProducts(a);
#pragma unroll
    for (int k = 0; k < kPanelDepth / 16; ++k) {
      Multiply<kColumns, true>(acc, a[k],
                               DescribeMnMajor<128>(stage.values[0] + k * 16 * 64, sizeof stage.values[0]));
    }
    CommitProducts();
    load(s + kAhead);  // before the wait, as in ScoreKernel
    store_row(s + kAhead + 1, next_key);
    next_key = key_of(s + kAhead + 2);
    WaitForProducts<1>();
  };
  BeginProducts(acc);
  find_max(begin);
  unsigned a[2][kPanelDepth / 16][4];
  static_assert(kTileStages % 2 == 0);
  for (int s = 0; s < num_stages; s += 2) {
    if (s % kTileStages == 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        powers[half] = BothHalves(Shrink(tile_max[half], shared.new_max[warp_row + FragmentRow(2 * half)]));
      find_max(begin + s / kTileStages + 1);
    }
    multiply(s, a[0]);
    multiply(s + 1, a[1]);
  }
  WaitForProducts<0>(acc);
  const int chain = split * read.num_ranks + read.rank;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = warp_row + FragmentRow(2 * half), query = query_tile * kPanelQueries + i;
    if (query >= NumQueries(block)) continue;
    float* out = read.feedback
                     ? read.acc + (static_cast<int64_t>(chain) * read.partial_rows + block.wave_row + query) *
                                      read.width
                     : read.out.row(block.first_row + query / block.num_heads) +
                           (block.first_head + query % block.num_heads) * dim;
    const float shrink = shared.shrink[i];
    const float share = !read.feedback && block.is_last_pass ? shared.share[i] : 1.0f;
    // Loads that wait for each other, as they would behind stores to what may be the same memory, would take
    // most of a block's time: 32 are under way before the first store.
    constexpr int kAtOnce = 16;  // fragments
#pragma unroll
    for (int first = 0; first < kFragments; first += kAtOnce) {
      float before[kAtOnce][2] = {};
      const auto each = [&](const auto& body) {
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int column = first_column + FragmentColumn(first + j, e);
            if (column < dim) body(j, e, out[column]);
          }
        }
      };
      if (block.pass > 0) each([&](int j, int e, const float& y) { before[j][e] = y; });
      each([&](int j, int e, float& y) {
        y = fmaf(before[j][e], shrink, acc[first + j][2 * half + e]) * share;
      });
    }
  }
}

void RoundPanels(cudaStream_t stream, const PanelRead& read, const PanelPass& pass) {
  const dim3 grid(pass.num_query_tiles * kPanelQueries, read.feedback ? 2 : 1);
  Launch(stream, grid, kThreads, 0, RoundPanelsKernel, read);
}

}  // namespace

void ReadOwnPanels(cudaStream_t stream, const PanelRead& read, const PanelPass& pass) {
  RoundPanels(stream, read, pass);
  Launch(stream, dim3(pass.num_items), kBlockThreads, sizeof(ScoreShared), ScoreKernel<true>, read);
}

void ReadPanels(cudaStream_t stream, const PanelRead& read, const PanelPass& pass, bool round) {
  if (round) RoundPanels(stream, read, pass);
  if (pass.num_items > 0)
    Launch(stream, dim3(pass.num_items), kBlockThreads, sizeof(ScoreShared), ScoreKernel<false>, read);
  const dim3 grid(CeilDiv(read.values.dim, kColumns), pass.max_splits, pass.num_query_tiles);
  Launch(stream, grid, kBlockThreads, sizeof(ValueShared), ValueKernel, read);
}

}  // namespace sessa::cuda
