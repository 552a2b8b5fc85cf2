// The second half of the reads of panel.h: values of a pass, weighted.
//
// ValueKernel: 128 queries x 256 columns over the keys of a split, the weights through registers, where they
// are brought to one power of two. Grid: column tiles x splits x query tiles.
#include "kernels/cuda/panel_stages.cuh"

namespace sessa::cuda {
namespace {

template <class T>
struct ValueShared : NarrowStages<T> {
  alignas(kOperandAlign) Bf16 weights[kStages][kPanelQueries * kPanelDepth];  // operands of 128-byte rows
  // Operands of 64 columns, a row a key.
  alignas(kOperandAlign) Bf16 values[kStatePlaces<T>][kColumns / 64][kPanelDepth * 64];
  const T* rows[kStages][kPanelDepth];  // a key's values, or null
  // Of each query: of both halves of the threads, then of the split so far.
  float max[2][kPanelQueries], sum[2][kPanelQueries];
  float new_max[kPanelQueries], shrink[kPanelQueries], share[kPanelQueries];
};

// The running maximum and sum of a split after this pass, a thread for each query and half of the tiles.
template <class Shared>
__device__ __forceinline__ void ExtendSplit(const PanelRead& read, const PanelBlock& block, int query_tile,
                                            int begin, int end, Shared& shared) {
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

template <class T>
__global__ void __launch_bounds__(kBlockThreads, 1) ValueKernel(const PanelRead read) {
  BeginKernel();
  auto& shared = *static_cast<ValueShared<T>*>(DynamicShared());
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
        key.position >= 0 ? VectorInPage<T>(read.values, key.page, block.kv, key.position) : nullptr;
  };
  const int64_t row_size = static_cast<int64_t>(block.num_tiles) * kPanelKeys;
  const Bf16* weights = static_cast<const Bf16*>(read.scratch.weights) + block.weights +
                        (query_tile * kPanelQueries + thread / 8) * row_size + begin * kPanelKeys +
                        thread % 8 * kChunk;
  // Of values a thread copies the same 16 bytes of every kKeyStep-th row. Requires the stage's rows to be
  // found, and a barrier since. to(i): where the i-th row's go.
  constexpr int kValueChunk = 16 / sizeof(T), kValueChunks = kColumns / kValueChunk,
                kKeyStep = kBlockThreads / kValueChunks, kValueCopies = kPanelDepth / kKeyStep;
  const int value_chunk = thread % kValueChunks * kValueChunk, value_row = thread / kValueChunks;
  const auto copy_values = [&](int s, const auto& to) {
    const T* rows[kValueCopies];  // read together: the compiler moves no read before a copy
#pragma unroll
    for (int i = 0; i < kValueCopies; ++i) rows[i] = shared.rows[s % kStages][value_row + i * kKeyStep];
#pragma unroll
    for (int i = 0; i < kValueCopies; ++i) {
      const bool valid = rows[i] != nullptr && first_column + value_chunk < Padded(dim);
      CopyAsync(to(i), valid ? static_cast<const void*>(rows[i] + first_column + value_chunk) : weights,
                valid);
    }
  };
  // As in ScoreKernel.
  int exponents[kValueCopies] = {};
  const auto narrow = [&](int s) {
    if constexpr (kIsInt8<T>) {
      if (s < num_stages) copy_values(s, [&](int i) { return &shared.narrow[s % 2][i][thread]; });
    }
  };
  const auto find_exponents = [&](int s) {
    if constexpr (kIsInt8<T>) {
#pragma unroll
      for (int i = 0; i < kValueCopies; ++i) {
        const int key = value_row + i * kKeyStep, column = first_column + value_chunk;
        const T* row = s < num_stages && column < dim ? shared.rows[s % kStages][key] : nullptr;
        exponents[i] = row != nullptr ? row[ToExponent(read.values, key, column)] : 0;
      }
    }
  };
  const auto widen = [&](int s) {
    if constexpr (kIsInt8<T>) {
      if (s >= num_stages) return;
      Bf16* to = shared.values[s % kStatePlaces<T>][value_chunk / 64];
#pragma unroll
      for (int i = 0; i < kValueCopies; ++i) {
        const int key = value_row + i * kKeyStep, column = value_chunk % 64;
        Widen(shared.narrow[s % 2][i][thread], exponents[i], to + SwizzledOffset<128>(key, column),
              to + SwizzledOffset<128>(key, column + kChunk));
      }
      find_exponents(s + 1);
    }
  };
  const auto load = [&](int s) {
    if (s < num_stages) {
      constexpr int kRowStep = kBlockThreads / 8;
#pragma unroll
      for (int i = 0; i < kPanelQueries / kRowStep; ++i)
        CopyAsync(
            shared.weights[s % kStages] + SwizzledOffset<128>(thread / 8 + i * kRowStep, thread % 8 * kChunk),
            weights + i * kRowStep * row_size + s * kPanelDepth, true);
      if constexpr (!kIsInt8<T>) {
        copy_values(s, [&](int i) {
          return shared.values[s % kStages][value_chunk / 64] +
                 SwizzledOffset<128>(value_row + i * kKeyStep, value_chunk % 64);
        });
      }
    }
    narrow(s + 1);
    CommitCopies();
  };
  constexpr int kRowsAhead = kAhead + (kIsInt8<T> ? 2 : 1);  // of the stage that is computed with
  for (int s = 0; s < kRowsAhead; ++s) store_row(s, key_of(s));
  Key next_key = key_of(kRowsAhead);
  __syncthreads();
  StartStages<T>(narrow, find_exponents, load, widen);
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
    LoadWeights(a, shared.weights[s % kStages], warp_row, powers);
    BeginProducts(a);
    const auto& values = shared.values[s % kStatePlaces<T>];
#pragma unroll
    for (int k = 0; k < kPanelDepth / 16; ++k)
      Multiply<kColumns, true>(acc, a[k], DescribeMnMajor<128>(values[0] + k * 16 * 64, sizeof values[0]));
    CommitProducts();
    widen(s + 1);
    load(s + kAhead);  // before the wait, as in ScoreKernel
    store_row(s + kRowsAhead, next_key);
    next_key = key_of(s + kRowsAhead + 1);
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

template <class T>
void LaunchValues(cudaStream_t stream, const PanelRead& read, const PanelPass& pass) {
  const dim3 grid(CeilDiv(read.values.dim, kColumns), pass.max_splits, pass.num_query_tiles);
  Launch(stream, grid, kBlockThreads, sizeof(ValueShared<T>), ValueKernel<T>, read);
}

}  // namespace

void WeighPanelValues(cudaStream_t stream, const PanelRead& read, const PanelPass& pass) {
  const auto launch = read.keys.dtype == DType::kI8 ? LaunchValues<Int8> : LaunchValues<Bf16>;
  launch(stream, read, pass);
}

}  // namespace sessa::cuda
