// Forward attention of many queries (prefill) in one kernel, on Hopper's tensor cores (wgmma.h): state in
// bf16 or int8, heads of at most 128 dimensions. A thread block takes 128 queries and goes over the tiles of
// their keys and values in order; scores, probabilities and the running softmax stay in registers. Queries
// and probabilities are rounded to bf16, sums are float32, in an order that depends on the block's position
// alone. Wider heads go by panel.h.
//
// Grid: blocks, the last first: those with the most tiles are at a prompt's end. 2 warpgroups of 64 queries.
// Tiles are 128 tokens at 128 dimensions (165 KiB of shared memory, one block on a multiprocessor) and 64
// tokens at 64 dimensions (51 KiB, two blocks, which fill each other's gaps: at half the width the
// exponentials take as long as the products).
//
// Method: FlashAttention-3 (Shah et al. 2024), its overlap within a warpgroup: the softmax of a tile runs
// while the tensor cores weight the values of the tile before. Copies of the next tile's keys and of this
// one's values are under way at the same time; of int8 state they are then widened (widen.cuh), and those of
// a tile later under way. Not yet measured; by design, a tile of 128 queries, 128 tokens and 128 dimensions
// takes of a multiprocessor's cycles
//   tensor cores   2048: 2 x 2 x 128^3 operations, 4096 a cycle
//   shared memory  1792: 160 KiB of operands and 64 KiB of copies, 128 bytes a cycle
//   instructions   1500: 740 of each warp, two warps a scheduler
//   exponentials   1024: 128^2, 16 a cycle
// The scores' products (1024) and the softmax (about 1300, beside the values' products) come one after the
// other; rescaling, packing and the barrier (about 300) are beside nothing. So about 2700 cycles, three
// quarters of the tensor cores' rate at best.
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/paged_read.cuh"
#include "kernels/cuda/wgmma.h"
#include "kernels/cuda/widen.cuh"

namespace sessa::cuda {
namespace {

constexpr int kBlockThreads = kMaxFusedQueries / kWarpgroupRows * kWarpgroup, kStages = 2;
constexpr int kRowBytes = 128, kColumns = kRowBytes / 2;  // of an operand's panel
constexpr int kRowStages = 4;  // a tile's rows are found while those of the two before are copied

// Of int8 state: a tile's keys and values as they come.
template <int kDim, class T>
struct NarrowTile {};
template <int kDim>
struct NarrowTile<kDim, Int8> {
  static constexpr int kCopies = kDim * kDim / kNarrowChunk / kBlockThreads;
  NarrowCopies<kCopies, kBlockThreads> narrow_keys, narrow_values;
};

// kDim: the head's dimensions, rounded up to 64 or 128; zero beyond. T: of the state.
template <int kDim, class T>
struct AttentionShared : NarrowTile<kDim, T> {
  static constexpr int kTokens = kDim, kPanels = kDim / kColumns;
  alignas(kOperandAlign) Bf16 queries[kPanels][kMaxFusedQueries * kColumns];
  alignas(kOperandAlign) Bf16 keys[kStages][kPanels][kTokens * kColumns];
  alignas(kOperandAlign) Bf16 values[kStages][kPanels][kTokens * kColumns];
  float held[kBlockThreads];
  int64_t rows[kRowStages][kTokens];  // at which element a token's key and its value begin
};

// The block's queries, rounded, and zeros. kWhole: they can be read by four.
template <bool kWhole, int kDim, class T>
__device__ __forceinline__ void LoadQueries(const PagedRead& read, const ReadBlock& block,
                                            AttentionShared<kDim, T>* shared) {
  const int num_queries = block.num_rows * block.num_heads, dim = read.keys.dim;
#pragma unroll kWhole ? 8 : 1
  for (int i = threadIdx.x; i < kMaxFusedQueries * kDim / 4; i += kBlockThreads) {
    const int query = i / (kDim / 4), c = i % (kDim / 4) * 4;
    float4 x = {0, 0, 0, 0};
    if (query < num_queries && c < dim) {
      const float* from = read.q.row(block.first_row + query / block.num_heads) +
                          (block.first_head + query % block.num_heads) * dim + c;
      if (kWhole) {
        x = Load4(from);
      } else {
        x = {from[0], c + 1 < dim ? from[1] : 0, c + 2 < dim ? from[2] : 0, c + 3 < dim ? from[3] : 0};
      }
    }
    Bf16* to = &shared->queries[c / kColumns][SwizzledOffset<kRowBytes>(query, c % kColumns)];
    *reinterpret_cast<uint2*>(to) = {PackBf16(x.x, x.y), PackBf16(x.z, x.w)};
  }
}

// Rows g and g + 8 of the warp: the running maximum of their scores, before the scale, and this lane's part
// of the sum of their weights.
struct RunningSoftmax {
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
};
// Scores become their weights. old: how the sums so far shrink; of a row that has seen nothing yet, which its
// window begins behind, they are zero. scale: with log2 e.
template <int kTiles>
__device__ __forceinline__ void ExtendSoftmax(float (&scores)[kTiles][4], float scale,
                                              RunningSoftmax& softmax, float (&old)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top[2] = {softmax.max[half], -INFINITY};  // two chains of each kind: latencies overlap
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) top[e] = fmaxf(top[e], scores[j][2 * half + e]);
    }
    const float max = RowMax(fmaxf(top[0], top[1])), finite = max == -INFINITY ? 0.0f : max,
                shift = finite * scale;
    // Exactly 1 where the maximum stays: what a rounded shift leaves would add up over the tiles.
    old[half] = Exp2((softmax.max[half] - finite) * scale);
    softmax.max[half] = max;
    float added[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& score = scores[j][2 * half + e];
        score = Exp2(fmaf(score, scale, -shift));
        added[e] += score;
      }
    }
    softmax.sum[half] = fmaf(softmax.sum[half], old[half], added[0] + added[1]);
  }
}

template <int kDim, class T>
__global__ void __launch_bounds__(kBlockThreads, kDim == 64 ? 2 : 1)
    FusedAttentionKernel(const PagedRead read) {
  BeginKernel();
  using Shared = AttentionShared<kDim, T>;
  constexpr int kTokens = Shared::kTokens, kPanels = Shared::kPanels;
  auto& shared = *static_cast<Shared*>(DynamicShared());
  const ReadBlock block = read.blocks[read.num_blocks - 1 - blockIdx.x];
  const int num_queries = block.num_rows * block.num_heads;
  if (num_queries == 0) return;
  const int thread = threadIdx.x, first_query = thread / kWarpLanes * kWarpRows,
            group_query = thread / kWarpgroup * kWarpgroupRows;
  const int dim = read.keys.dim, horizon = block.start + block.num_rows,
            num_tiles = CeilDiv(horizon, kTokens),
            first_tile = read.window == 0 ? 0 : max(0, block.start - read.window + 1) / kTokens;

  // A page is fetched a tile before what it says is stored: nobody waits for it.
  const auto page_of = [&](int tile) {
    const int position = tile * kTokens + thread;
    return thread < kTokens && position < horizon ? PageOf(read.keys, block.pages, position) : 0;
  };
  const auto store_row = [&](int tile, int page) {
    const int position = tile * kTokens + thread;
    if (thread >= kTokens) return;
    shared.rows[tile % kRowStages][thread] =
        position < horizon
            ? VectorInPage<T>(read.keys, page, block.kv, position) - static_cast<const T*>(read.keys.data)
            : 0;
  };
  // Requires the tile's rows to be stored, and a barrier since. A thread copies the same chunk of every row
  // it has. to(i): where the i-th goes.
  constexpr int kCopyChunk = 16 / sizeof(T), kChunks = kDim / kCopyChunk, kCopyRows = kBlockThreads / kChunks,
                kCopies = kTokens / kCopyRows;
  static_assert(kCopyRows % 8 == 0);  // the swizzle's period
  const int chunk = thread % kChunks * kCopyChunk, copy_row = thread / kChunks;
  const auto copy_rows = [&](const PagedVectors& from, int tile, const auto& to) {
    const T* data = static_cast<const T*>(from.data) + chunk;
    const int num_tokens = chunk < Padded(dim) ? horizon - tile * kTokens : 0;  // beyond: zeros
    int64_t rows[kCopies];  // read together: the compiler moves no read before a copy
#pragma unroll
    for (int i = 0; i < kCopies; ++i) rows[i] = shared.rows[tile % kRowStages][copy_row + i * kCopyRows];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) CopyAsync(to(i), data + rows[i], copy_row + i * kCopyRows < num_tokens);
  };
  using Operand = Bf16[kPanels][kTokens * kColumns];
  const auto place_in = [&](Operand& to, int i, int column) {
    return &to[column / kColumns][SwizzledOffset<kRowBytes>(copy_row, column % kColumns)] +
           i * kCopyRows * kColumns;
  };
  const auto copy = [&](const PagedVectors& from, int tile, Operand& to) {
    copy_rows(from, tile, [&](int i) { return place_in(to, i, chunk); });
  };
  // Of int8: copies to the thread's own place, and the exponents to registers; and from there.
  int key_exponents[kCopies] = {}, value_exponents[kCopies] = {};
  const auto narrow = [&](const PagedVectors& from, int tile, auto& to, auto& exponents) {
    copy_rows(from, tile, [&](int i) { return &to[i][thread]; });
    const Int8* data = static_cast<const Int8*>(from.data);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int token = copy_row + i * kCopyRows;
      exponents[i] = chunk < dim && token < horizon - tile * kTokens
                         ? data[shared.rows[tile % kRowStages][token] + ToExponent(from, token, chunk)]
                         : 0;
    }
  };
  const auto widen = [&](const auto& from, const auto& exponents, Operand& to) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      Widen(from[i][thread], exponents[i], place_in(to, i, chunk), place_in(to, i, chunk + kChunk));
  };
  // What was copied is there for everyone's products, and everyone is done with the products before.
  const auto hand_over = [&] {
    WaitForCopies<0>();
    FenceOperands();
    __syncthreads();
  };

  // ptxas moves arithmetic that is to run beside products behind the wait for them, but it does not move
  // stores: one of what depends on all of the softmax holds it in its place.
  volatile float& held = shared.held[thread];
  float scores[kTokens / 8][4], sums[kDim / 8][4] = {}, old[2];
  unsigned p[kTokens / 16][4];
  RunningSoftmax softmax;
  const auto start_scores = [&](int tile) {
#pragma unroll
    for (int k = 0; k < kDim; k += 16) {
      const MatrixDescriptor a = DescribeKMajor<kRowBytes>(
                                 &shared.queries[k / kColumns][group_query * kColumns + k % kColumns]),
                             b = DescribeKMajor<kRowBytes>(
                                 &shared.keys[tile % kStages][k / kColumns][k % kColumns]);
      k == 0 ? Multiply<kTokens, false, false>(scores, a, b) : Multiply<kTokens, false>(scores, a, b);
    }
    CommitProducts();
  };
  const auto start_values = [&](int tile) {
#pragma unroll
    for (int k = 0; k < kTokens; k += 16) {
      Multiply<kDim, true>(
          sums, p[k / 16],
          DescribeMnMajor<kRowBytes>(&shared.values[tile % kStages][0][k * kColumns], kTokens * kRowBytes));
    }
    CommitProducts();
  };
  constexpr int kRowsAhead = kIsInt8<T> ? 3 : 2;
  int next_page = page_of(first_tile + kRowsAhead);
  const auto narrow_next = [&](int tile) {
    if constexpr (kIsInt8<T>) {
      narrow(read.values, tile, shared.narrow_values, value_exponents);
      narrow(read.keys, tile + 1, shared.narrow_keys, key_exponents);
      CommitCopies();
    }
  };
  // While products run: this tile's values and the next one's keys come, to where nothing is read any more.
  const auto prepare = [&](int tile) {
    if constexpr (kIsInt8<T>) {
      widen(shared.narrow_values, value_exponents, shared.values[tile % kStages]);
      widen(shared.narrow_keys, key_exponents, shared.keys[(tile + 1) % kStages]);
      if (tile + 1 < num_tiles) narrow_next(tile + 1);
    } else {
      copy(read.values, tile, shared.values[tile % kStages]);
      if (tile + 1 < num_tiles) copy(read.keys, tile + 1, shared.keys[(tile + 1) % kStages]);
      CommitCopies();
    }
    store_row(tile + kRowsAhead, next_page);
    next_page = page_of(tile + kRowsAhead + 1);
  };
  constexpr float kLog2E = 1.44269504f;
  const float scale = read.scale * kLog2E;
  int num_visible[2];
#pragma unroll
  for (int half = 0; half < 2; ++half)
    num_visible[half] = block.start + (first_query + FragmentRow(2 * half)) / block.num_heads + 1;
  const int window = read.window == 0 ? horizon : read.window;
  const auto weigh = [&](int tile) {
    if ((tile + 1) * kTokens > block.start + 1 || tile * kTokens < horizon - window) {  // not seen by all
#pragma unroll
      for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int position = tile * kTokens + FragmentColumn(j, e);
          if (position >= num_visible[e / 2] || position < num_visible[e / 2] - window)
            scores[j][e] = -INFINITY;
        }
      }
    }
    ExtendSoftmax(scores, scale, softmax, old);
  };
  // The fragments of the scores' columns are those of A's k.
  const auto pack = [&] {
#pragma unroll
    for (int k = 0; k < kTokens / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        p[k][i] = PackBf16(scores[2 * k + i / 2][i % 2 * 2], scores[2 * k + i / 2][i % 2 * 2 + 1]);
    }
  };

  for (int tile = first_tile; tile < first_tile + kRowsAhead; ++tile) store_row(tile, page_of(tile));
  __syncthreads();
  if constexpr (kIsInt8<T>) {
    narrow(read.keys, first_tile, shared.narrow_keys, key_exponents);
  } else {
    copy(read.keys, first_tile, shared.keys[first_tile % kStages]);
  }
  CommitCopies();
  if (dim % 4 == 0 && read.q.stride % 4 == 0 && reinterpret_cast<uintptr_t>(read.q.data) % 16 == 0) {
    LoadQueries<true>(read, block, &shared);
  } else {
    LoadQueries<false>(read, block, &shared);
  }
  if constexpr (kIsInt8<T>) {
    WaitForCopies<0>();
    widen(shared.narrow_keys, key_exponents, shared.keys[first_tile % kStages]);
    narrow_next(first_tile);
  }
  hand_over();
  BeginProducts();
  start_scores(first_tile);
  prepare(first_tile);
  WaitForProducts<0>(scores);
  weigh(first_tile);
  pack();
  hand_over();
  for (int tile = first_tile + 1; tile < num_tiles; ++tile) {
    BeginProducts(sums, p);
    start_scores(tile);
    start_values(tile - 1);
    prepare(tile);
    WaitForProducts<1>(scores);
    weigh(tile);
    held = softmax.sum[0] + softmax.sum[1];
    WaitForProducts<0>(sums, p);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[j][e] *= old[e / 2];
    }
    pack();
    hand_over();
  }
  BeginProducts(sums, p);
  start_values(num_tiles - 1);
  WaitForProducts<0>(sums);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = first_query + FragmentRow(2 * half);
    const float share = 1.0f / RowSum(softmax.sum[half]);
    if (query >= num_queries) continue;
    float* to = read.out.row(block.first_row + query / block.num_heads) +
                (block.first_head + query % block.num_heads) * dim;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int column = FragmentColumn(j, e);
        if (column < dim) to[column] = sums[j][2 * half + e] * share;
      }
    }
  }
}

template <int kDim, class T>
void LaunchAttention(cudaStream_t stream, const PagedRead& read) {
  Launch(stream, dim3(read.num_blocks), kBlockThreads, sizeof(AttentionShared<kDim, T>),
         FusedAttentionKernel<kDim, T>, read);
}

}  // namespace

void FusedAttention(cudaStream_t stream, const PagedRead& read, int) {
  if (read.num_blocks == 0) return;
  const bool is_int8 = read.keys.dtype == DType::kI8;
  const auto launch =
      read.keys.dim <= 64
          ? (is_int8 ? LaunchAttention<64, Int8> : LaunchAttention<64, Bf16>)
          : (is_int8 ? LaunchAttention<kMaxFusedDim, Int8> : LaunchAttention<kMaxFusedDim, Bf16>);
  launch(stream, read);
}

}  // namespace sessa::cuda
