// y = x W^T + b for few rows, by multiply-adds in float32. A block multiplies its rows with 64 rows of W over
// a split of the dimensions. W is read once for each block of rows: 2 bytes for 2 FLOPs of each row in bf16.
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
               ? static_cast<const T*>(task.weight) +
                     static_cast<int64_t>(block.first_output + j) * RowStride<T>(k)
               : nullptr;
  };
  if constexpr (std::is_same_v<T, Int8>) {
    const auto scale = [&](int j, int group) {
      return ToFloat(static_cast<const Bf16*>(
          task.scale)[static_cast<int64_t>(block.first_output + j) * CeilDiv(k, 64) + group]);
    };
    Tile::Run(shared, block.begin, block.end, k, query, key, scale);
  } else {
    Tile::Run(shared, block.begin, block.end, k, query, key);
  }
  FinishLinear<Tile::kQueries, kThreads>(args, block,
                                         [&](int i) { return shared.sums[0][i / kTile][i % kTile]; });
}

template <class Tile, class T>
void LaunchLinear(cudaStream_t stream, const LinearArgs& args, const LinearPlan& plan) {
  const dim3 grid(args.num_tiles, plan.num_splits, plan.num_row_blocks);
  Launch(stream, grid, kThreads, sizeof(typename Tile::Shared), LinearKernel<Tile, T>, args);
}

// Grid: outputs x columns.
__global__ void __launch_bounds__(kThreads)
    UnpackKernel(const Int8* weight, const Bf16* scale, int k, int stride, Bf16* to) {
  BeginKernel();
  const int64_t output = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (column >= Padded(k)) return;
  const float w = column < k ? static_cast<float>(weight[output * stride + column]) *
                                   ToFloat(scale[output * CeilDiv(k, 64) + column / 64])
                             : 0.0f;
  to[output * Padded(k) + column] = RoundToBf16(w);
}

template <class T>
void LinearTyped(cudaStream_t stream, const LinearArgs& args, const LinearPlan& plan) {
  switch (plan.path) {
    case LinearPath::kOneRow: return LaunchLinear<DotTile<T, 1, true>, T>(stream, args, plan);
    case LinearPath::kFewRows: return LaunchLinear<DotTile<T, kFewQueries, true>, T>(stream, args, plan);
    case LinearPath::kTensorCores: return LaunchTensorLinear(stream, args, plan);
    case LinearPath::kManyRows: return LaunchLinear<DotTile<T, 8, false>, T>(stream, args, plan);
  }
}

}  // namespace

void Linear(RowLaunch on, Matrix x, int first_row, int last_row, const LinearTasks& tasks, DType dtype,
            bool tensor_cores, LinearScratch scratch) {
  LinearArgs args;
  args.x = x;
  args.live = on.live;
  args.first_row = first_row;
  args.last_row = last_row;
  args.num_tasks = tasks.count;
  args.num_tiles = 0;
  for (int i = 0; i < tasks.count; ++i) {
    args.tasks[i] = tasks.task[i];
    args.tasks[i].first_tile = args.num_tiles;
    args.num_tiles += CeilDiv(tasks.task[i].n, kTile);
  }
  args.partial = scratch.partial;
  args.counters = scratch.counters;
  if (last_row <= first_row || args.num_tiles == 0) return;
  const LinearPlan plan = PlanLinear(last_row - first_row, x.cols, args.num_tiles, dtype, tensor_cores);
  args.split = plan.split;
  dtype == DType::kF32  ? LinearTyped<float>(on.stream, args, plan)
  : dtype == DType::kI8 ? LinearTyped<Int8>(on.stream, args, plan)
                        : LinearTyped<Bf16>(on.stream, args, plan);
}

void UnpackWeights(cudaStream_t stream, const LinearTask& task, int k, void* to) {
  Launch(stream, dim3(task.n, CeilDiv(Padded(k), kThreads)), kThreads, 0, UnpackKernel,
         static_cast<const Int8*>(task.weight), static_cast<const Bf16*>(task.scale), k,
         WeightStride(DType::kI8, k), static_cast<Bf16*>(to));
}

}  // namespace sessa::cuda
