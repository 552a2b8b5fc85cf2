// Forward attention of many queries (prefill) in one kernel, on the tensor cores: state in bf16, heads of at
// most 128 dimensions. A thread block takes 64 queries and goes over the tiles of their keys and values;
// scores, probabilities and the running softmax stay in registers. Queries and probabilities are rounded to
// bf16, sums are float32, in an order that depends on the block's position alone. Wider heads, and the
// feedback read, go by tensor_read.cu.
//
// Grid: blocks. 4 warps of 16 queries. The next tile's keys and values are copied while the present one is
// computed with: at 128 dimensions 87 KiB of shared memory, two blocks on a multiprocessor, and 64
// multiply-adds for each byte. Method: FlashAttention-2 (Dao 2023) over pages.
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/paged_read.cuh"

namespace sessa::cuda {
namespace {

constexpr int kWarps = kMaxQueries / kWarpRows, kBlockThreads = kWarps * kWarpLanes, kStages = 2;
constexpr int kScoreTiles = kTile / 8;

// kDim: the head's dimensions, rounded up to 64 or 128; zero beyond.
template <int kDim>
struct AttentionShared {
  static constexpr int kStride = kDim + kChunk;  // rows of an ldmatrix in different banks
  alignas(16) Bf16 queries[kMaxQueries][kStride];
  alignas(16) Bf16 keys[kStages][kTile][kStride];
  alignas(16) Bf16 values[kStages][kTile][kStride];
  int64_t rows[kStages][kTile];  // where a token's key and its value begin, or -1
};

// The weights of a tile's scores in the running softmax (max, sum: of rows g and g + 8; the sum of this
// lane's columns), and how the sums so far shrink.
__device__ __forceinline__ void ExtendSoftmax(float (&scores)[kScoreTiles][4], const int (&visible)[2],
                                              float scale, float (&max)[2], float (&sum)[2],
                                              float (&old)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float tile_max = -INFINITY;
#pragma unroll
    for (int j = 0; j < kScoreTiles; ++j) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        scores[j][e] = FragmentColumn(j, e) < visible[half] ? scores[j][e] * scale : -INFINITY;
        tile_max = fmaxf(tile_max, scores[j][e]);
      }
    }
    const Rescale r = Extend(max[half], RowMax(tile_max));
    max[half] = r.max;
    old[half] = r.old;
    float added = 0;
#pragma unroll
    for (int j = 0; j < kScoreTiles; ++j) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        scores[j][e] = expf(scores[j][e] - r.max);
        added += scores[j][e];
      }
    }
    sum[half] = fmaf(sum[half], r.old, added);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kBlockThreads, kDim <= 64 ? 4 : 2)
    FusedAttentionKernel(const PagedRead read) {
  BeginKernel();
  auto& shared = *static_cast<AttentionShared<kDim>*>(DynamicShared());
  constexpr int kOutTiles = kDim / 8;
  const ReadBlock block = read.blocks[blockIdx.x];
  const int num_queries = block.num_rows * block.num_heads;
  if (num_queries == 0) return;
  const int thread = threadIdx.x, lane = thread % kWarpLanes, first_query = thread / kWarpLanes * kWarpRows;
  const int dim = read.keys.dim, horizon = block.start + block.num_rows,
            num_tiles = (horizon + kTile - 1) / kTile;

  for (int i = thread; i < kMaxQueries * kDim; i += kBlockThreads) {
    const int query = i / kDim, c = i % kDim;
    float x = 0;
    if (query < num_queries && c < dim) {
      x = read.q.row(block.first_row +
                     query / block.num_heads)[(block.first_head + query % block.num_heads) * dim + c];
    }
    shared.queries[query][c] = RoundToBf16(x);
  }
  const auto find_rows = [&](int tile) {
    const int position = tile * kTile + thread;
    if (thread >= kTile || tile >= num_tiles) return;
    shared.rows[tile % kStages][thread] = position < horizon
                                              ? VectorAt<Bf16>(read.keys, block.pages, block.kv, position) -
                                                    static_cast<const Bf16*>(read.keys.data)
                                              : -1;
  };
  // Requires its rows to be found, and a barrier since.
  const auto load = [&](int tile) {
    const int stage = tile % kStages;
    if (tile < num_tiles) {
#pragma unroll 4
      for (int i = thread; i < kTile * kDim / kChunk; i += kBlockThreads) {
        const int j = i / (kDim / kChunk), c = i % (kDim / kChunk) * kChunk;
        const int64_t row = shared.rows[stage][j];
        const bool valid = row >= 0 && c < Padded(dim);
        const int64_t at = valid ? row + c : 0;
        CopyAsync(&shared.keys[stage][j][c], static_cast<const Bf16*>(read.keys.data) + at, valid);
        CopyAsync(&shared.values[stage][j][c], static_cast<const Bf16*>(read.values.data) + at, valid);
      }
    }
    CommitCopies();
  };

  float acc[kOutTiles][4] = {};
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, old[2];
  find_rows(0);
  __syncthreads();
  load(0);
  for (int tile = 0; tile < num_tiles; ++tile) {
    const int stage = tile % kStages;
    find_rows(tile + 1);
    WaitForCopies<0>();
    __syncthreads();  // this tile is there, and everyone is done with the one before
    load(tile + 1);
    float scores[kScoreTiles][4] = {};
    MultiplyTiles<kDim>(scores, shared.queries + first_query, [&](unsigned(&y)[4], int k, int n) {
      // Keys are the columns of B: rows of shared memory, k across.
      LoadMatrices(y, &shared.keys[stage][n + lane % 8 + lane / 16 * 8][k + lane / 8 % 2 * 8]);
    });
    int visible[2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      visible[half] =
          block.start + (first_query + FragmentRow(2 * half)) / block.num_heads + 1 - tile * kTile;
    ExtendSoftmax(scores, visible, read.scale, max, sum, old);
#pragma unroll
    for (int j = 0; j < kOutTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[j][e] *= old[e / 2];
    }
    // The fragments of the scores' columns are those of A's k.
#pragma unroll
    for (int k = 0; k < kTile; k += 16) {
      const float(&low)[4] = scores[k / 8], (&high)[4] = scores[k / 8 + 1];
      const unsigned p[4] = {PackBf16(low[0], low[1]), PackBf16(low[2], low[3]), PackBf16(high[0], high[1]),
                             PackBf16(high[2], high[3])};
#pragma unroll
      for (int j = 0; j < kOutTiles; j += 2) {
        unsigned y[4];
        // Tokens are the rows of B, as in shared memory.
        LoadMatricesTransposed(y, &shared.values[stage][k + lane % 16][j * 8 + lane / 16 * 8]);
        MultiplyBf16(acc[j], p, y[0], y[1]);
        MultiplyBf16(acc[j + 1], p, y[2], y[3]);
      }
    }
  }
  sum[0] = RowSum(sum[0]);
  sum[1] = RowSum(sum[1]);
#pragma unroll
  for (int j = 0; j < kOutTiles; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int query = first_query + FragmentRow(e), column = FragmentColumn(j, e);
      if (query < num_queries && column < dim)
        WriteForward(read, block, query, column, acc[j][e], sum[e / 2]);
    }
  }
}

template <int kDim>
void LaunchAttention(cudaStream_t stream, const PagedRead& read) {
  Launch(stream, dim3(read.num_blocks), kBlockThreads, sizeof(AttentionShared<kDim>),
         FusedAttentionKernel<kDim>, read);
}

}  // namespace

void FusedAttention(cudaStream_t stream, const PagedRead& read, int) {
  if (read.num_blocks == 0) return;
  if (read.keys.dim <= 64) {
    LaunchAttention<64>(stream, read);
  } else {
    LaunchAttention<kMaxFusedDim>(stream, read);
  }
}

}  // namespace sessa::cuda
