// The second half of a read for few queries (few_read.cu): the tiles of a chain in their order, 32 at a time
// through two stages. The own tile of a feedback block comes last: its cached tokens are added to the
// rescaled chain one by one, and FeedbackSolve goes on with the tokens of the block itself. Grid: (read,
// block, query, chain, part of 128 columns). It is a launch of its own because a long chain wants more blocks
// than the one that is last to leave its tile.
#include "kernels/cuda/few_read.cuh"

namespace sessa::cuda {
namespace {

constexpr int kFoldColumns = 128, kFoldTiles = 32, kFoldStages = 2;
// Of the own tile's values, as StageExponents.
template <class T>
struct FoldExponents {};
template <>
struct FoldExponents<Int8> {
  alignas(16) Int8 exponents[kFoldColumns / kStateGroup][kTile];
};
template <class T>
struct FoldShared : FoldExponents<T> {
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
  if constexpr (kIsInt8<T>) {
    CopyExponents<kFoldColumns / kStateGroup>(
        read.values, first_column / kStateGroup, num_own, shared.exponents,
        [&](int j) { return VectorAt<T>(read.values, block.pages, 0, first_own + j); });
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
    for (int j = 0; j < num_own; ++j) {
      float v = ToFloat(shared.own_values[j][thread]);
      if constexpr (kIsInt8<T>) v *= ScaleOf(shared.exponents[thread / kStateGroup][j]);
      acc = fmaf(shared.own[j], v, acc);
    }
  }
  if (column < dim) read.acc[row * read.width + column] = acc;
  if (column == 0) {
    read.max[row] = max;
    read.sum[row] = sum;
  }
}

template <class T>
void LaunchFold(cudaStream_t stream, const FewReads& reads) {
  int num_blocks = 0;
  for (int i = 0; i < reads.count; ++i) num_blocks += FoldBlocks(reads.read[i]);
  Launch(stream, dim3(num_blocks), kFoldColumns, sizeof(FoldShared<T>), FoldKernel<T>, reads);
}

}  // namespace

void FoldTiles(cudaStream_t stream, const FewReads& reads) {
  const DType dtype = reads.read[0].keys.dtype;
  const auto launch = dtype == DType::kF32  ? LaunchFold<float>
                      : dtype == DType::kI8 ? LaunchFold<Int8>
                                            : LaunchFold<Bf16>;
  launch(stream, reads);
}

}  // namespace sessa::cuda
