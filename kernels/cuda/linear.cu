// y = x W^T + b for few rows, by multiply-adds in float32. A block multiplies its rows with 64 rows of W over
// kSplit dimensions. W is read once for each block of rows: 2 bytes for 2 FLOPs of each row in bf16.
#include "kernels/cuda/dot_tile.cuh"
#include "kernels/cuda/linear.cuh"

namespace sessa::cuda {
namespace {

template <class Tile, class T>
__global__ void __launch_bounds__(kThreads, Tile::kMinBlocks) LinearKernel(const LinearArgs args) {
  BeginLinear<T>(args);
  auto& shared = *static_cast<typename Tile::Shared*>(DynamicShared());
  const LinearBlock block(args, Tile::kQueries);
  if (block.first_row >= block.last_row) return;
  const LinearTask& task = args.tasks[block.task];
  const int k = args.x.cols;
  const auto query = [&](int i) -> const float* {
    return block.first_row + i < block.last_row ? args.x.row(block.first_row + i) : nullptr;
  };
  const auto key = [&](int j) -> const T* {
    return block.first_output + j < task.n
               ? static_cast<const T*>(task.weight) + static_cast<int64_t>(block.first_output + j) * Padded(k)
               : nullptr;
  };
  Tile::Run(shared, block.begin, block.end, k, query, key);
  FinishLinear<Tile::kQueries, kThreads>(args, block,
                                         [&](int i) { return shared.sums[0][i / kTile][i % kTile]; });
}

// Rows of a block, by the instantiation that the rows call for.
constexpr int RowBlock(int rows) { return rows == 1 ? 1 : rows <= kFewQueries ? kFewQueries : kMaxQueries; }

template <class Tile, class T>
void LaunchLinear(cudaStream_t stream, const LinearArgs& args) {
  const int rows = args.last_row - args.first_row;
  const dim3 grid(args.num_tiles, Splits(args.x.cols), CeilDiv(rows, Tile::kQueries));
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
            DType dtype, bool tensor_cores, LinearScratch scratch) {
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
    args.num_tiles += CeilDiv(tasks[i].n, kTile);
  }
  args.partial = scratch.partial;
  args.counters = scratch.counters;
  if (last_row <= first_row || args.num_tiles == 0) return;
  const int rows = last_row - first_row;
  if (dtype == DType::kF32) {
    LinearTyped<float>(on.stream, args);
  } else if (tensor_cores && rows > kFewQueries && rows <= kMaxQueries) {
    LaunchTensorLinear(on.stream, args);
  } else {
    LinearTyped<Bf16>(on.stream, args);
  }
}

}  // namespace sessa::cuda
