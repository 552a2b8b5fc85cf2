// What the linears' kernels share: the outputs of a thread block, and the fix-up of split sums by the last
// block of a tile to arrive, which adds them in their order ("Stream-K", Osama et al. 2023, in its simplest
// form).
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear_plan.h"

namespace sessa::cuda {

struct LinearArgs {
  Matrix x;
  const int32_t* live;
  int first_row, last_row;
  int num_tasks, num_tiles, split;
  LinearTask tasks[kMaxLinearTasks];
  float* partial;      // [row blocks, tiles, splits, kRows, kTile]
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
      Prefetch(static_cast<const T*>(task.weight) + static_cast<int64_t>(output) * Padded(args.x.cols) +
               tile.begin + i % lines * kLine);
    }
  }
  AwaitPrevious();
}

// Writes the block's outputs, or leaves them to the block that completes the tile. sum_at(i): of row i /
// kTile, output i % kTile, which every thread may read.
template <int kRows, int kBlockThreads, class SumAt>
__device__ void FinishLinear(const LinearArgs& args, const LinearBlock& block, const SumAt& sum_at) {
  __shared__ bool last;
  const LinearTask& task = args.tasks[block.task];
  const auto write = [&](int i, float sum) {
    const int row = block.first_row + i / kTile, column = block.first_output + i % kTile;
    if (row < block.last_row && column < task.n)
      Finish(task.epilogue, task.bias != nullptr ? sum + task.bias[column] : sum, task.y.row(row) + column);
  };
  const int num_splits = gridDim.y;
  if (num_splits == 1) {
    for (int i = threadIdx.x; i < kRows * kTile; i += kBlockThreads) write(i, sum_at(i));
    return;
  }
  const int64_t tile = static_cast<int64_t>(blockIdx.z) * args.num_tiles + blockIdx.x;
  float* partial = args.partial + tile * num_splits * kRows * kTile;
  for (int i = threadIdx.x; i < kRows * kTile; i += kBlockThreads)
    partial[static_cast<int64_t>(blockIdx.y) * kRows * kTile + i] = sum_at(i);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&args.counters[tile], 1u) == static_cast<unsigned>(num_splits - 1);
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int i = threadIdx.x; i < kRows * kTile; i += kBlockThreads) {
    float sum = __ldcg(partial + i);
    for (int s = 1; s < num_splits; ++s) sum += __ldcg(partial + static_cast<int64_t>(s) * kRows * kTile + i);
    write(i, sum);
  }
  if (threadIdx.x == 0) args.counters[tile] = 0;
}

// ---- tensor_linear.cu ----
// For more than kFewQueries and at most kMaxQueries rows, of bf16 weights.
void LaunchTensorLinear(cudaStream_t stream, const LinearArgs& args, const LinearPlan& plan);

}  // namespace sessa::cuda
