// y = x W^T + b for 9 to 64 rows on the tensor cores, of bf16 weights: the linears of decode in batches. By
// multiply-adds, 64 rows take 3.6 times as long as reading W at the very best (67 TFLOP/s against 3.35 TB/s).
// A value of x counts as the sum of two bf16, which loses no more than 2^-17 of it; sums are float32, in an
// order that the rows beside do not change, but not in that of linear.cu: with --batch_invariant this file is
// not used.
//
// Grid: as LinearBlock. 4 warps of 16 outputs and all rows, in stages of 64 dimensions, two of which are on
// their way.
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/linear.cuh"

namespace sessa::cuda {
namespace {

constexpr int kDepth = 64, kStages = 3;
constexpr int kOutputsOfWarp = 16, kBlockThreads = kTile / kOutputsOfWarp * kWarpLanes;

template <int kRows>
union TensorLinearShared {
  struct Stage {
    alignas(16) Bf16 weights[kTile][kDepth + kChunk];
    alignas(16) float x[kRows][kDepth + 8];  // lanes (g, t) read 8 bytes at 8 g + 2 t: all banks, once
  };
  Stage stages[kStages];
  float sums[kRows][kTile + 4];
};

// kRowTiles: of 16 rows.
template <int kRowTiles>
__global__ void __launch_bounds__(kBlockThreads, 4) TensorLinearKernel(const LinearArgs args) {
  BeginLinear<Bf16>(args);
  constexpr int kRows = kRowTiles * kWarpRows;
  using Shared = TensorLinearShared<kRows>;
  auto& shared = *static_cast<Shared*>(DynamicShared());
  const LinearBlock block(args, kRows);
  if (block.first_row >= block.last_row) return;
  const LinearTask& task = args.tasks[block.task];
  const Matrix& x = args.x;
  const int thread = threadIdx.x, lane = thread % kWarpLanes, output = thread / kWarpLanes * kOutputsOfWarp;
  const int g = lane / 4, t = lane % 4;
  // A thread copies the same 16 bytes of every 16th row of W.
  constexpr int kRowStep = kBlockThreads * kChunk / kDepth;
  const int chunk = thread % (kDepth / kChunk) * kChunk, row = thread / (kDepth / kChunk);
  const Bf16* weights[kTile / kRowStep];
#pragma unroll
  for (int i = 0; i < kTile / kRowStep; ++i) {
    const int j = block.first_output + row + i * kRowStep;
    weights[i] =
        j < task.n ? static_cast<const Bf16*>(task.weight) + static_cast<int64_t>(j) * Padded(x.cols) + chunk
                   : nullptr;
  }
  const bool aligned = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0 &&
                       x.cols % 4 == 0;  // 16-byte copies
  const int num_stages = CeilDiv(block.end - block.begin, kDepth);
  const auto load = [&](int s) {
    if (s < num_stages) {
      typename Shared::Stage& stage = shared.stages[s % kStages];
      const int k0 = block.begin + s * kDepth;
#pragma unroll
      for (int i = 0; i < kTile / kRowStep; ++i) {
        const bool valid = weights[i] != nullptr && k0 + chunk < Padded(x.cols);
        CopyAsync(&stage.weights[row + i * kRowStep][chunk],
                  valid ? weights[i] + k0 : static_cast<const Bf16*>(task.weight), valid);
      }
      if (aligned) {
#pragma unroll 4
        for (int i = thread; i < kRows * kDepth / 4; i += kBlockThreads) {
          const int r = i / (kDepth / 4), k = i % (kDepth / 4) * 4;
          const bool valid = block.first_row + r < block.last_row && k0 + k < block.end;
          CopyAsync(&stage.x[r][k], valid ? x.row(block.first_row + r) + k0 + k : x.data, valid);
        }
      } else {
        for (int i = thread; i < kRows * kDepth; i += kBlockThreads) {
          const int r = i / kDepth, k = i % kDepth;
          const bool valid = block.first_row + r < block.last_row && k0 + k < block.end;
          stage.x[r][k] = valid ? x.row(block.first_row + r)[k0 + k] : 0.0f;
        }
      }
    }
    CommitCopies();
  };

  float acc[kRowTiles][2][4] = {};
  for (int s = 0; s < kStages - 1; ++s) load(s);
  for (int s = 0; s < num_stages; ++s) {
    WaitForCopies<kStages - 2>();
    __syncthreads();  // stage s is there, and everyone is done with the one that is filled next
    load(s + kStages - 1);
    const typename Shared::Stage& stage = shared.stages[s % kStages];
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      unsigned w[4];  // outputs are the columns of B: rows of shared memory, k across
      LoadMatrices(w, &stage.weights[output + lane % 8 + lane / 16 * 8][k + lane / 8 % 2 * 8]);
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        unsigned high[4], low[4];
#pragma unroll
        for (int part = 0; part < 4; ++part) {  // as mma.h wants a
          const float* p = &stage.x[i * kWarpRows + g + part % 2 * 8][k + 2 * t + part / 2 * 8];
          const float p0 = p[0], p1 = p[1];
          high[part] = PackBf16(p0, p1);
          low[part] = PackBf16(p0 - __uint_as_float(high[part] << 16),
                               p1 - __uint_as_float(high[part] & 0xffff0000u));
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          MultiplyBf16(acc[i][j], low, w[2 * j], w[2 * j + 1]);
          MultiplyBf16(acc[i][j], high, w[2 * j], w[2 * j + 1]);
        }
      }
    }
  }
  __syncthreads();  // the sums take the stages' place
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        shared.sums[i * kWarpRows + FragmentRow(e)][output + FragmentColumn(j, e)] = acc[i][j][e];
    }
  }
  __syncthreads();
  FinishLinear<kRows, kBlockThreads>(args, block, [&](int i) { return shared.sums[i / kTile][i % kTile]; });
}

template <int kRowTiles>
void LaunchRows(cudaStream_t stream, const LinearArgs& args, const LinearPlan& plan) {
  Launch(stream, dim3(args.num_tiles, plan.num_splits), kBlockThreads,
         sizeof(TensorLinearShared<kRowTiles * kWarpRows>), TensorLinearKernel<kRowTiles>, args);
}

}  // namespace

void LaunchTensorLinear(cudaStream_t stream, const LinearArgs& args, const LinearPlan& plan) {
  switch (plan.block_rows / kWarpRows) {
    case 1: return LaunchRows<1>(stream, args, plan);
    case 2: return LaunchRows<2>(stream, args, plan);
    case 3: return LaunchRows<3>(stream, args, plan);
    case 4: return LaunchRows<4>(stream, args, plan);
  }
}

}  // namespace sessa::cuda
