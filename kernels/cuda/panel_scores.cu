// The first half of the reads of panel.h: weights of a pass.
//
// RoundPanelsKernel: queries and the blocks' own keys as bf16 panels. Grid: panel rows x (queries, keys).
//
// ScoreKernel: 128 queries x 256 keys, two warpgroups of 64 x 256, 43 multiply-adds for each byte from L2.
// Grid: query tiles x key tiles of all blocks.
#include "kernels/cuda/panel_stages.cuh"

namespace sessa::cuda {
namespace {

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
  // A warp takes a group of columns, two a lane. Keys are rounded as the cache rounds them.
  static_assert(kPanelDepth == 2 * kWarpLanes);
  for (int c = 2 * static_cast<int>(threadIdx.x); c < stride; c += 2 * kThreads) {
    float x[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) x[e] = row != nullptr && c + e < dim ? row[c + e] : 0.0f;
    if (is_key && read.keys.dtype == DType::kI8) {
      const int exponent = ExponentOf(WarpLargest(max(MagnitudeBits(x[0]), MagnitudeBits(x[1]))));
#pragma unroll
      for (float& y : x) y = Dequantize(Quantize(y, exponent), exponent);
    }
    *reinterpret_cast<unsigned*>(out + c) = PackBf16(x[0], x[1]);
  }
}

template <class T>
struct ScoreShared {
  struct Stages : NarrowStages<T> {
    // Operands of 128-byte rows.
    alignas(kOperandAlign) Bf16 queries[kStages][kPanelQueries * kPanelDepth];
    alignas(kOperandAlign) Bf16 keys[kStatePlaces<T>][kPanelKeys * kPanelDepth];
  };
  union {
    Stages stages;
    // Of each warp, its rows' weights. 16 bytes longer than their contents: 8 rows lie in different banks.
    Bf16 weights[kBlockThreads / kWarpLanes][kWarpRows][kPanelKeys + kChunk];
  };
  const T* keys[kPanelKeys];  // in their pages, or null
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

// T: of the keys; the block's own are bf16.
template <bool kOwn, class T>
__global__ void __launch_bounds__(kBlockThreads, 1) ScoreKernel(const PanelRead read) {
  BeginKernel();
  auto& shared = *static_cast<ScoreShared<T>*>(DynamicShared());
  auto& stages = shared.stages;
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
  constexpr int kRowStep = kBlockThreads / 8;
  const Bf16* queries = static_cast<const Bf16*>(read.scratch.queries) +
                        (block.panel_row + query_tile * kPanelQueries + row) * stride + chunk;
  const int first_key = (block.first_tile + key_tile) * kPanelKeys;
  if (!kOwn) {  // a page look-up is two divisions and a load: one a thread, not eight after another
    static_assert(kPanelKeys == kBlockThreads);
    const int key = first_key + thread, position = TilePosition(read, key / kTile) + key % kTile;
    shared.keys[thread] = position < block.start + (read.feedback ? 0 : block.num_rows)
                              ? VectorAt<T>(read.keys, block.pages, block.kv, position)
                              : nullptr;
    __syncthreads();
  }
  // Of the keys a thread copies the same 16 bytes of every kKeyStep-th row too.
  constexpr int kKeyChunk = 16 / sizeof(T), kKeyChunks = kPanelDepth / kKeyChunk,
                kKeyStep = kBlockThreads / kKeyChunks, kKeyCopies = kPanelKeys / kKeyStep;
  const int key_chunk = thread % kKeyChunks * kKeyChunk, key_row = thread / kKeyChunks;
  const T* keys[kKeyCopies];
#pragma unroll
  for (int i = 0; i < kKeyCopies; ++i) {
    const int key = key_row + i * kKeyStep;
    if constexpr (kOwn) {
      keys[i] = first_key + key < block.num_rows
                    ? static_cast<const T*>(read.scratch.keys) + (block.panel_row + first_key + key) * stride
                    : nullptr;
    } else {
      keys[i] = shared.keys[key];
    }
    if (keys[i] != nullptr) keys[i] += key_chunk;
  }
  // to(i): where the i-th key's go.
  const auto copy_keys = [&](int s, const auto& to) {
    const int k = s * kPanelDepth;
#pragma unroll
    for (int i = 0; i < kKeyCopies; ++i) {
      const bool valid = keys[i] != nullptr && k + key_chunk < Padded(dim);
      CopyAsync(to(i), valid ? static_cast<const void*>(keys[i] + k) : queries, valid);
    }
  };
  // Of int8: the keys of a stage come before its queries, and their exponents to registers.
  int exponents[kKeyCopies] = {};
  const auto narrow = [&](int s) {
    if constexpr (kIsInt8<T>) {
      if (s < num_stages) copy_keys(s, [&](int i) { return &stages.narrow[s % 2][i][thread]; });
    }
  };
  const auto find_exponents = [&](int s) {
    if constexpr (kIsInt8<T>) {  // the rows that a thread has are in the same slot of a page
      const int at = ToExponent(read.keys, key_row, s * kPanelDepth) - key_chunk;
#pragma unroll
      for (int i = 0; i < kKeyCopies; ++i)
        exponents[i] = s < num_stages && keys[i] != nullptr ? keys[i][at] : 0;
    }
  };
  const auto widen = [&](int s) {
    if constexpr (kIsInt8<T>) {
      if (s >= num_stages) return;
      Bf16* to = stages.keys[s % kStatePlaces<T>];
#pragma unroll
      for (int i = 0; i < kKeyCopies; ++i) {
        const int key = key_row + i * kKeyStep;
        Widen(stages.narrow[s % 2][i][thread], exponents[i], to + SwizzledOffset<128>(key, key_chunk),
              to + SwizzledOffset<128>(key, key_chunk + kChunk));
      }
      find_exponents(s + 1);
    }
  };
  const auto load = [&](int s) {
    if (s < num_stages) {
#pragma unroll
      for (int i = 0; i < kPanelQueries / kRowStep; ++i)
        CopyAsync(stages.queries[s % kStages] + SwizzledOffset<128>(row + i * kRowStep, chunk),
                  queries + i * kRowStep * stride + s * kPanelDepth, true);
      if constexpr (!kIsInt8<T>) {
        copy_keys(s, [&](int i) {
          return stages.keys[s % kStages] + SwizzledOffset<128>(key_row + i * kKeyStep, key_chunk);
        });
      }
    }
    narrow(s + 1);
    CommitCopies();
  };
  float scores[kFragments][4] = {};
  StartStages<T>(narrow, find_exponents, load, widen);
  for (int s = 0; s < num_stages; ++s) {
    WaitForCopies<kAhead - 1>();
    FenceOperands();
    // Stage s is there, and everyone has waited for the products of stage s - 2, whose place the next copies
    // (and widened keys) take: they start before the wait for stage s - 1, which is as long as a stage.
    __syncthreads();
    BeginProducts(scores);
#pragma unroll
    for (int k = 0; k < kPanelDepth; k += 16) {
      Multiply<kPanelKeys, false>(
          scores,
          DescribeKMajor<128>(stages.queries[s % kStages] + warpgroup * kWarpgroupRows * kPanelDepth + k),
          DescribeKMajor<128>(stages.keys[s % kStatePlaces<T>] + k));
    }
    CommitProducts();
    widen(s + 1);
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

void RoundPanels(cudaStream_t stream, const PanelRead& read, const PanelPass& pass) {
  const dim3 grid(pass.num_query_tiles * kPanelQueries, read.feedback ? 2 : 1);
  Launch(stream, grid, kThreads, 0, RoundPanelsKernel, read);
}

template <bool kOwn, class T>
void LaunchScores(cudaStream_t stream, const PanelRead& read, const PanelPass& pass) {
  Launch(stream, dim3(pass.num_items), kBlockThreads, sizeof(ScoreShared<T>), ScoreKernel<kOwn, T>, read);
}

}  // namespace

void ReadOwnPanels(cudaStream_t stream, const PanelRead& read, const PanelPass& pass) {
  RoundPanels(stream, read, pass);
  LaunchScores<true, Bf16>(stream, read, pass);
}

void ReadPanels(cudaStream_t stream, const PanelRead& read, const PanelPass& pass, bool round) {
  if (round) RoundPanels(stream, read, pass);
  if (pass.num_items > 0) {
    const auto launch = read.keys.dtype == DType::kI8 ? LaunchScores<false, Int8> : LaunchScores<false, Bf16>;
    launch(stream, read, pass);
  }
  WeighPanelValues(stream, read, pass);
}

}  // namespace sessa::cuda
