// The column of each row's largest value: greedy sampling, so that a step's logits need not leave the device.
// Grid: rows x parts of kPart columns. The maximum is found by atomicMax over 64 bits, which no order of
// arrival changes: the value as an unsigned number of the same order, then the column with the lowest of
// equals largest. 4 bytes read for each value, once.
#include "kernels/cuda/device.cuh"

namespace sessa::cuda {
namespace {

constexpr int kPart = 16 * kThreads;

// 0 is below every candidate's: NaN and -inf are none.
__device__ __forceinline__ unsigned long long Candidate(float x, int column) {
  if (!(x > -INFINITY)) return 0;
  const unsigned bits = __float_as_uint(x + 0.0f);  // -0 is 0
  const unsigned ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(ordered) << 32 | (0xffffffffu - static_cast<unsigned>(column));
}

__global__ void __launch_bounds__(kThreads)
    ArgMaxKernel(const int32_t* live, Matrix x, unsigned long long* best) {
  BeginKernel();
  const int row = blockIdx.x;
  if (row >= LiveRows(live, gridDim.x)) return;
  const int first = static_cast<int>(blockIdx.y) * kPart, end = min(x.cols, first + kPart);
  unsigned long long top = 0;
  for (int c = first + static_cast<int>(threadIdx.x); c < end; c += kThreads)
    top = max(top, Candidate(x.row(row)[c], c));
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) {
    const unsigned high = __shfl_xor_sync(0xffffffffu, static_cast<unsigned>(top >> 32), mask);
    const unsigned low = __shfl_xor_sync(0xffffffffu, static_cast<unsigned>(top), mask);
    top = max(top, static_cast<unsigned long long>(high) << 32 | low);
  }
  if (threadIdx.x % kWarpLanes == 0 && top != 0) atomicMax(best + row, top);
}

// A thread a row.
__global__ void __launch_bounds__(kThreads)
    TakeColumnKernel(const int32_t* live, int num_rows, unsigned long long* best, int32_t* columns) {
  BeginKernel();
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= LiveRows(live, num_rows)) return;
  columns[row] = best[row] == 0 ? -1 : static_cast<int32_t>(0xffffffffu - static_cast<unsigned>(best[row]));
  best[row] = 0;
}

}  // namespace

void ArgMax(RowLaunch on, Matrix x, unsigned long long* best, int32_t* columns) {
  if (x.rows == 0) return;
  if (x.cols > 0)
    Launch(on.stream, dim3(x.rows, (x.cols + kPart - 1) / kPart), kThreads, 0, ArgMaxKernel, on.live, x,
           best);
  Launch(on.stream, dim3((x.rows + kThreads - 1) / kThreads), kThreads, 0, TakeColumnKernel, on.live, x.rows,
         best, columns);
}

}  // namespace sessa::cuda
