// y = x W^T + b for few rows. Grid: (tiles of 64 outputs over all tasks, splits of k, blocks of rows). A
// block multiplies its rows with 64 rows of W over kSplit dimensions and leaves the sums in scratch; the last
// block of a tile to arrive adds the splits in their order. W is read once for each block of rows: 2 bytes
// for 2 FLOPs of each row in bf16. Method: split-k with a fix-up by the last arriver ("Stream-K", Osama et
// al. 2023, in its simplest form).
#include "kernels/cuda/dot_tile.cuh"

namespace sessa::cuda {
namespace {

constexpr int kSplit = 256;

struct LinearArgs {
  Matrix x;
  const int32_t* live;
  int first_row, last_row;
  int num_tasks, num_tiles;
  LinearTask tasks[kMaxLinearTasks];
  float* partial;      // [row blocks, tiles, splits, kQueries, kTile]
  unsigned* counters;  // [row blocks, tiles]
};

template <class Tile, class T>
__global__ void __launch_bounds__(kThreads, Tile::kMinBlocks) LinearKernel(const LinearArgs args) {
  auto& shared = *static_cast<typename Tile::Shared*>(DynamicShared());
  __shared__ bool last;
  const int first_row = args.first_row + blockIdx.z * Tile::kQueries;
  const int last_row = min(args.last_row, LiveRows(args.live, args.x.rows));
  if (first_row >= last_row) return;
  int t = 0;
  while (t + 1 < args.num_tasks && static_cast<int>(blockIdx.x) >= args.tasks[t + 1].first_tile) ++t;
  const LinearTask& task = args.tasks[t];
  const int first = (static_cast<int>(blockIdx.x) - task.first_tile) * kTile;
  const int k = args.x.cols, num_splits = gridDim.y, begin = blockIdx.y * kSplit;
  const auto query = [&](int i) -> const float* {
    return first_row + i < last_row ? args.x.row(first_row + i) : nullptr;
  };
  const auto key = [&](int j) -> const T* {
    return first + j < task.n
               ? static_cast<const T*>(task.weight) + static_cast<int64_t>(first + j) * Padded(k)
               : nullptr;
  };
  Tile::Run(shared, begin, min(k, begin + kSplit), k, query, key);

  const auto write = [&](int i, float sum) {
    const int row = first_row + i / kTile, column = first + i % kTile;
    if (row < last_row && column < task.n)
      task.y.row(row)[column] = task.bias != nullptr ? sum + task.bias[column] : sum;
  };
  if (num_splits == 1) {
    for (int i = threadIdx.x; i < Tile::kQueries * kTile; i += kThreads)
      write(i, shared.sums[0][i / kTile][i % kTile]);
    return;
  }
  const int64_t tile = static_cast<int64_t>(blockIdx.z) * args.num_tiles + blockIdx.x;
  float* partial = args.partial + tile * num_splits * Tile::kQueries * kTile;
  for (int i = threadIdx.x; i < Tile::kQueries * kTile; i += kThreads) {
    partial[static_cast<int64_t>(blockIdx.y) * Tile::kQueries * kTile + i] =
        shared.sums[0][i / kTile][i % kTile];
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&args.counters[tile], 1u) == static_cast<unsigned>(num_splits - 1);
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int i = threadIdx.x; i < Tile::kQueries * kTile; i += kThreads) {
    float sum = __ldcg(partial + i);
    for (int s = 1; s < num_splits; ++s)
      sum += __ldcg(partial + static_cast<int64_t>(s) * Tile::kQueries * kTile + i);
    write(i, sum);
  }
  if (threadIdx.x == 0) args.counters[tile] = 0;
}

constexpr int Splits(int k) { return (k + kSplit - 1) / kSplit; }
// Rows of a block, by the instantiation that the rows call for.
constexpr int RowBlock(int rows) { return rows == 1 ? 1 : rows <= kFewQueries ? kFewQueries : kMaxQueries; }

template <class Tile, class T>
void LaunchLinear(cudaStream_t stream, const LinearArgs& args) {
  const int rows = args.last_row - args.first_row;
  const dim3 grid(args.num_tiles, Splits(args.x.cols), (rows + Tile::kQueries - 1) / Tile::kQueries);
  Launch(stream, grid, kThreads, sizeof(typename Tile::Shared), LinearKernel<Tile, T>, args);
}

template <class T>
void LinearTyped(cudaStream_t stream, const LinearArgs& args) {
  const int rows = args.last_row - args.first_row;
  if (rows == 1) {
    LaunchLinear<DotTile<T, 1, true>, T>(stream, args);
  } else if (rows <= kFewQueries) {
    LaunchLinear<DotTile<T, kFewQueries, true>, T>(stream, args);
  } else {
    LaunchLinear<DotTile<T, 8, false>, T>(stream, args);
  }
}

}  // namespace

int64_t LinearPartialFloats(int rows, int k, int num_tiles) {
  const int64_t row_blocks = (rows + RowBlock(rows) - 1) / RowBlock(rows);
  return Splits(k) > 1 ? row_blocks * RowBlock(rows) * num_tiles * Splits(k) * kTile : 0;
}
int64_t LinearCounters(int rows, int num_tiles) {
  return static_cast<int64_t>((rows + RowBlock(rows) - 1) / RowBlock(rows)) * num_tiles;
}

void Linear(RowLaunch on, Matrix x, int first_row, int last_row, const LinearTask* tasks, int num_tasks,
            DType dtype, LinearScratch scratch) {
  LinearArgs args;
  args.x = x;
  args.live = on.live;
  args.first_row = first_row;
  args.last_row = last_row;
  args.num_tasks = num_tasks;
  args.num_tiles = 0;
  for (int i = 0; i < num_tasks; ++i) {
    args.tasks[i] = tasks[i];
    args.tasks[i].first_tile = args.num_tiles;
    args.num_tiles += (tasks[i].n + kTile - 1) / kTile;
  }
  args.partial = scratch.partial;
  args.counters = scratch.counters;
  if (last_row <= first_row || args.num_tiles == 0) return;
  if (dtype == DType::kF32) {
    LinearTyped<float>(on.stream, args);
  } else {
    LinearTyped<Bf16>(on.stream, args);
  }
}

}  // namespace sessa::cuda
