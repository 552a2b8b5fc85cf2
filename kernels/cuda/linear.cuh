// What the linears' kernels share: the outputs of a thread block, and the fix-up of split sums by the last
// block of a tile to arrive, which adds them in their order ("Stream-K", Osama et al. 2023, in its simplest
// form).
#pragma once

#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear_plan.h"

namespace sessa::cuda {

struct LinearArgs {
  Matrix x;
  const int32_t* live;
  int first_row, last_row;
  int num_tasks, num_tiles, split;
  LinearTask tasks[kMaxLinearTasks];
  float* partial;      // [row blocks, tiles, splits, kRows, kTile], of several splits or a gate
  unsigned* counters;  // [row blocks, tiles]
};

// The weights of a thread block, and what it computes. Grid: (tiles of kTile outputs over all tasks, splits
// of k, blocks of kRows rows).
struct LinearTile {
  __device__ explicit LinearTile(const LinearArgs& args)
      : begin(static_cast<int>(blockIdx.y) * args.split), end(min(args.x.cols, begin + args.split)), task(0) {
    while (task + 1 < args.num_tasks && static_cast<int>(blockIdx.x) >= args.tasks[task + 1].first_tile)
      ++task;
    first_output = (static_cast<int>(blockIdx.x) - args.tasks[task].first_tile) * kTile;
  }
  int begin, end;  // of k
  int task, first_output;
};
struct LinearBlock : LinearTile {
  __device__ LinearBlock(const LinearArgs& args, int rows)
      : LinearTile(args),
        first_row(args.first_row + static_cast<int>(blockIdx.z) * rows),
        last_row(min(args.last_row, LiveRows(args.live, args.x.rows))) {}
  int first_row, last_row;  // last_row: of all blocks
};

template <class T>
__device__ __forceinline__ int RowStride(int k) {
  return WeightStride(std::is_same_v<T, Int8> ? DType::kI8 : DType::kBF16, k);
}

// BeginKernel of linears. No kernel writes weights: a block's first 256 dimensions (32 KiB in bf16) are
// already on their way to the L2 cache while the kernel before ends.
template <class T>
__device__ __forceinline__ void BeginLinear(const LinearArgs& args) {
  LetNextIn();
  const LinearTile tile(args);
  const LinearTask& task = args.tasks[tile.task];
  constexpr int kLine = 128 / sizeof(T);
  const int lines = CeilDiv(min(tile.end - tile.begin, 256), kLine);
#pragma unroll 1
  for (int i = threadIdx.x; blockIdx.z == 0 && i < kTile * lines; i += blockDim.x) {
    const int output = tile.first_output + i / lines;
    if (output < task.n) {
      Prefetch(static_cast<const T*>(task.weight) + static_cast<int64_t>(output) * RowStride<T>(args.x.cols) +
               tile.begin + i % lines * kLine);
    }
  }
  AwaitPrevious();
}

// Writes the block's outputs, or leaves them to the block that completes the tile: the last one of all
// splits, and of both products where there is a gate. sum_at(i): of row i / kTile, output i % kTile, which
// every thread may read.
template <int kRows, int kBlockThreads, class SumAt>
__device__ void FinishLinear(const LinearArgs& args, const LinearBlock& block, const SumAt& sum_at) {
  __shared__ bool last;
  const LinearTask& task = args.tasks[block.task];
  const auto biased = [&](const LinearTask& of, int i, float sum) {
    const int column = block.first_output + i % kTile;
    return of.bias != nullptr && column < of.n ? sum + of.bias[column] : sum;
  };
  const auto for_each = [&](const auto& write) {  // write(i, y)
    for (int i = threadIdx.x; i < kRows * kTile; i += kBlockThreads) {
      const int row = block.first_row + i / kTile, column = block.first_output + i % kTile;
      if (row < block.last_row && column < task.n) write(i, task.y.row(row) + column);
    }
  };
  const bool is_half = task.half != LinearTask::Half::kNone;
  const int num_splits = gridDim.y;
  if (num_splits == 1 && !is_half) {
    for_each([&](int i, float* y) { Finish(task.epilogue, biased(task, i, sum_at(i)), y); });
    return;
  }
  const auto partials_of = [&](int64_t tile) { return args.partial + tile * num_splits * kRows * kTile; };
  const int64_t tile = static_cast<int64_t>(blockIdx.z) * args.num_tiles + blockIdx.x;
  float* own = partials_of(tile) + static_cast<int64_t>(blockIdx.y) * kRows * kTile;
  for (int i = threadIdx.x; i < kRows * kTile; i += kBlockThreads) own[i] = sum_at(i);
  __threadfence();
  __syncthreads();
  // Both halves count at the gate's tile.
  const int half_tiles = CeilDiv(task.n, kTile);
  const int64_t first = task.half == LinearTask::Half::kUp ? tile - half_tiles : tile;
  const unsigned num_parts = is_half ? 2 * num_splits : num_splits;
  if (threadIdx.x == 0) last = atomicAdd(&args.counters[first], 1u) == num_parts - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  const auto total = [&](const float* partial, int i) {
    float sum = __ldcg(partial + i);
    for (int s = 1; s < num_splits; ++s) sum += __ldcg(partial + static_cast<int64_t>(s) * kRows * kTile + i);
    return sum;
  };
  const float* partial = partials_of(first);
  if (is_half) {
    const int gate = block.task - (task.half == LinearTask::Half::kUp ? 1 : 0);
    const float* up = partials_of(first + half_tiles);
    for_each([&](int i, float* y) {
      *y = Silu(biased(args.tasks[gate], i, total(partial, i))) *
           biased(args.tasks[gate + 1], i, total(up, i));
    });
  } else {
    for_each([&](int i, float* y) { Finish(task.epilogue, biased(task, i, total(partial, i)), y); });
  }
  if (threadIdx.x == 0) args.counters[first] = 0;
}

// ---- tensor_linear.cu ----
// For more than kFewQueries and at most kMaxQueries rows, of bf16 weights.
void LaunchTensorLinear(cudaStream_t stream, const LinearArgs& args, const LinearPlan& plan);

}  // namespace sessa::cuda
