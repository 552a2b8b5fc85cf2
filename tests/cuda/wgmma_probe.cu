// wgmma_probe: what the kernels take for granted of a Hopper GPU and no emulator can tell, in about a second:
// every form of wgmma.h against plain sums, powers of two by exp2f and Exp2, what FenceOperands costs while
// copies are in flight, and how fast all multiprocessors read one panel from L2 by cp.async. Exit code: 0, 1
// when a result is wrong, 3 when there is no GPU.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/wgmma.h"

namespace sessa::cuda {
namespace {

constexpr int kDepth = 128, kRows = 128, kBlockThreads = 2 * kWarpgroup;
constexpr int kStageBytes = 48 << 10, kProbeStages = 4, kSharedBytes = kProbeStages * kStageBytes;
constexpr int kCopiesOfStage = kStageBytes / 16 / kBlockThreads;  // of a thread

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(error));
  std::exit(error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? 3 : 1);
}
template <class T>
T* Device(size_t n) {
  void* p = nullptr;
  Check(cudaMalloc(&p, n * sizeof(T)), "cudaMalloc");
  return static_cast<T*>(p);
}

// d[kRows][kN] = a[kRows][kDepth] b, with b[kN][kDepth] or, kMnMajorB, b[kDepth][kN], by two warpgroups.
template <int kN, int kRowBytes, bool kMnMajorB, bool kRegistersA>
__global__ void __launch_bounds__(kBlockThreads, 1) ProductKernel(const Bf16* a, const Bf16* b, float* d) {
  constexpr int kColumns = kRowBytes / 2, kRowsB = kMnMajorB ? kDepth : kN,
                kColumnsB = kMnMajorB ? kN : kDepth;
  Bf16* shared_a = static_cast<Bf16*>(DynamicShared());  // panels of kColumns, one after the other
  Bf16* shared_b = shared_a + kRows * kDepth;
  const int thread = threadIdx.x, lane = thread % kWarpLanes, warp = thread / kWarpLanes;
  const auto load = [&](Bf16* to, const Bf16* from, int rows, int columns) {
    for (int i = thread; i < rows * columns / 8; i += kBlockThreads) {
      const int row = i / (columns / 8), c = i % (columns / 8) * 8;
      CopyAsync(to + c / kColumns * rows * kColumns + SwizzledOffset<kRowBytes>(row, c % kColumns),
                from + i * 8, true);
    }
  };
  load(shared_a, a, kRows, kDepth);
  load(shared_b, b, kRowsB, kColumnsB);
  CommitCopies();
  WaitForCopies<0>();
  FenceOperands();
  __syncthreads();
  const int first_row = thread / kWarpgroup * kWarpgroupRows;
  float sums[kN / 8][4] = {};
  unsigned x[kDepth / 16][4];
  if (kRegistersA) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      LoadMatrices(x[k / 16],
                   shared_a + k / kColumns * kRows * kColumns +
                       SwizzledOffset<kRowBytes>(warp * kWarpRows + lane % 16, k % kColumns + lane / 16 * 8));
    }
  }
  BeginProducts(sums, x);
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    const MatrixDescriptor y =
        kMnMajorB ? DescribeMnMajor<kRowBytes>(shared_b + k * kColumns, kRowsB * kRowBytes)
                  : DescribeKMajor<kRowBytes>(shared_b + k / kColumns * kRowsB * kColumns + k % kColumns);
    if (kRegistersA) {
      k == 0 ? Multiply<kN, kMnMajorB, false>(sums, x[k / 16], y)
             : Multiply<kN, kMnMajorB>(sums, x[k / 16], y);
    } else {
      const MatrixDescriptor z = DescribeKMajor<kRowBytes>(shared_a + k / kColumns * kRows * kColumns +
                                                           first_row * kColumns + k % kColumns);
      k == 0 ? Multiply<kN, kMnMajorB, false>(sums, z, y) : Multiply<kN, kMnMajorB>(sums, z, y);
    }
  }
  CommitProducts();
  WaitForProducts<0>(sums, x);
#pragma unroll
  for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e)
      d[(warp * kWarpRows + FragmentRow(e)) * kN + FragmentColumn(j, e)] = sums[j][e];
  }
}

Bf16 FromInt(int i) {  // exact below 256
  const float x = static_cast<float>(i);
  return {static_cast<uint16_t>(__builtin_bit_cast(uint32_t, x) >> 16)};
}

// Whole numbers, whose sums are exact in float32.
template <int kN, int kRowBytes, bool kMnMajorB, bool kRegistersA>
bool IsFormRight() {
  std::vector<Bf16> a(kRows * kDepth), b(kN * kDepth);
  std::vector<int> whole_a(a.size()), whole_b(b.size());
  for (size_t i = 0; i < a.size(); ++i) a[i] = FromInt(whole_a[i] = static_cast<int>(i * 37 % 101) - 50);
  for (int n = 0; n < kN; ++n) {
    for (int k = 0; k < kDepth; ++k) {
      const int x = whole_b[n * kDepth + k] = (n * kDepth + k) * 29 % 67 - 30;
      b[kMnMajorB ? k * kN + n : n * kDepth + k] = FromInt(x);
    }
  }
  Bf16 *device_a = Device<Bf16>(a.size()), *device_b = Device<Bf16>(b.size());
  float* device_d = Device<float>(kRows * kN);
  const size_t bytes_a = a.size() * sizeof(Bf16), bytes_b = b.size() * sizeof(Bf16);
  Check(cudaMemcpy(device_a, a.data(), bytes_a, cudaMemcpyHostToDevice), "copying in");
  Check(cudaMemcpy(device_b, b.data(), bytes_b, cudaMemcpyHostToDevice), "copying in");
  Launch(cudaStream_t{}, dim3(1), kBlockThreads, bytes_a + bytes_b,
         ProductKernel<kN, kRowBytes, kMnMajorB, kRegistersA>, device_a, device_b, device_d);
  std::vector<float> d(kRows * kN);
  Check(cudaMemcpy(d.data(), device_d, d.size() * sizeof(float), cudaMemcpyDeviceToHost), "a product");
  Check(cudaGetLastError(), "a product");
  int num_wrong = 0;
  std::string first;
  for (int i = 0; i < kRows; ++i) {
    for (int n = 0; n < kN; ++n) {
      int sum = 0;
      for (int k = 0; k < kDepth; ++k) sum += whole_a[i * kDepth + k] * whole_b[n * kDepth + k];
      const float got = d[i * kN + n];
      if (got == static_cast<float>(sum)) continue;
      if (num_wrong++ == 0) {
        first = ", the first at row " + std::to_string(i) + ", column " + std::to_string(n) + ": " +
                std::to_string(got) + " for " + std::to_string(sum);
      }
    }
  }
  std::printf("wgmma n %d, rows of %d bytes, B %s, A in %s: %s\n", kN, kRowBytes,
              kMnMajorB ? "MN-major" : "K-major", kRegistersA ? "registers" : "shared memory",
              num_wrong == 0 ? "right" : (std::to_string(num_wrong) + " wrong" + first).c_str());
  for (void* p : {static_cast<void*>(device_a), static_cast<void*>(device_b), static_cast<void*>(device_d)})
    Check(cudaFree(p), "cudaFree");
  return num_wrong == 0;
}

// The scores' weights are joined by powers of two: those must be exact.
__global__ void PowersKernel(int* num_wrong) {
  const int n = static_cast<int>(threadIdx.x) - 126;
  if (n > 127) return;
  const float expected = __uint_as_float(static_cast<unsigned>(n + 127) << 23), x = static_cast<float>(n);
  if (exp2f(x) != expected || Exp2(x) != expected) atomicAdd(num_wrong, 1);
}

// Cycles of a wait for an older copy: [0] with the fence behind it and nothing in flight, [1] with newer
// copies in flight and no fence, [2] with both.
__global__ void FenceKernel(const char* from, long long* cycles) {
  char* to = static_cast<char*>(DynamicShared());
  const int thread = threadIdx.x;
  for (int kind = 0; kind < 3; ++kind) {
    long long best = 1ll << 30;
    for (int round = 0; round < 32; ++round) {
      const char* at = from + (kind * 32 + round) * (size_t{1} << 20) + thread * 16;
      CopyAsync(to + thread * 16, at, true);
      CommitCopies();
      WaitForCopies<0>();
      __syncthreads();
      for (int i = 0; kind > 0 && i < kCopiesOfStage; ++i)
        CopyAsync(to + (i * kBlockThreads + thread) * 16, at + (i + 1) * kBlockThreads * 16, true);
      CommitCopies();
      const long long begin = clock64();
      WaitForCopies<1>();
      if (kind != 1) FenceOperands();
      __syncthreads();  // or the clock might not wait for the fence
      const long long passed = clock64() - begin;
      WaitForCopies<0>();
      __syncthreads();
      best = passed < best ? passed : best;
    }
    if (thread == 0) cycles[kind] = best;
  }
}

__global__ void __launch_bounds__(kBlockThreads, 1) StreamKernel(const char* from, size_t bytes) {
  char* to = static_cast<char*>(DynamicShared());
  for (size_t at = 0, s = 0; at + kStageBytes <= bytes; at += kStageBytes, ++s) {
    for (int i = 0; i < kCopiesOfStage; ++i) {
      const int offset = (i * kBlockThreads + static_cast<int>(threadIdx.x)) * 16;
      CopyAsync(to + s % kProbeStages * kStageBytes + offset, from + at + offset, true);
    }
    CommitCopies();
    WaitForCopies<kProbeStages - 1>();
  }
  WaitForCopies<0>();
}

void ProbeFence(const char* memory) {
  long long *device_cycles = Device<long long>(3), cycles[3];
  Launch(cudaStream_t{}, dim3(1), kBlockThreads, kSharedBytes, FenceKernel, memory, device_cycles);
  Check(cudaMemcpy(cycles, device_cycles, sizeof cycles, cudaMemcpyDeviceToHost), "the fence");
  std::printf(
      "fence: %lld cycles with nothing in flight; with copies in flight %lld without it, %lld with it: %s\n",
      cycles[0], cycles[1], cycles[2],
      cycles[2] - cycles[1] >= 600 ? "it waits for them" : "it does not wait");
}

void ProbeL2(const char* memory) {
  int multiprocessors = 0, kilohertz = 0;
  Check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0), "the device");
  Check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0), "the device");
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "an event"), Check(cudaEventCreate(&end), "an event");
  for (int blocks : {multiprocessors / 2, multiprocessors}) {
    for (size_t mib : {4, 24}) {
      const size_t bytes = (mib << 20) / kStageBytes * kStageBytes;
      constexpr int kRuns = 10;
      const auto run = [&] {
        Launch(cudaStream_t{}, dim3(blocks), kBlockThreads, kSharedBytes, StreamKernel, memory, bytes);
      };
      for (int i = 0; i < 2; ++i) run();
      Check(cudaEventRecord(begin), "an event");
      for (int i = 0; i < kRuns; ++i) run();
      Check(cudaEventRecord(end), "an event");
      Check(cudaEventSynchronize(end), "reading from L2");
      float milliseconds = 0;
      Check(cudaEventElapsedTime(&milliseconds, begin, end), "the time");
      const double of_block = kRuns * static_cast<double>(bytes) / (milliseconds * 1e-3);
      std::printf("L2: %d blocks read the same %zu MiB: %.2f TB/s, %.1f bytes a cycle for each at %d MHz\n",
                  blocks, mib, blocks * of_block * 1e-12, of_block / (kilohertz * 1e3), kilohertz / 1000);
    }
  }
}

bool Run() {
  bool right = IsFormRight<256, 128, false, false>();
  right &= IsFormRight<128, 128, false, false>();
  right &= IsFormRight<64, 128, false, false>();
  right &= IsFormRight<32, 64, false, false>();
  right &= IsFormRight<256, 128, true, true>();
  right &= IsFormRight<128, 128, true, true>();
  right &= IsFormRight<64, 128, true, true>();
  right &= IsFormRight<32, 64, true, true>();
  int *device_wrong = Device<int>(1), num_wrong = 0;
  Check(cudaMemset(device_wrong, 0, sizeof num_wrong), "cudaMemset");
  Launch(cudaStream_t{}, dim3(1), 256, 0, PowersKernel, device_wrong);
  Check(cudaMemcpy(&num_wrong, device_wrong, sizeof num_wrong, cudaMemcpyDeviceToHost), "powers of two");
  std::printf("powers of two: %s\n",
              num_wrong == 0 ? "exact" : (std::to_string(num_wrong) + " wrong").c_str());
  constexpr size_t kBytes = size_t{128} << 20;
  char* memory = Device<char>(kBytes);
  Check(cudaMemset(memory, 1, kBytes), "cudaMemset");
  ProbeFence(memory);
  ProbeL2(memory);
  Check(cudaGetLastError(), "the probe");
  return right && num_wrong == 0;
}

}  // namespace
}  // namespace sessa::cuda

int main() {
  sessa::cuda::Check(cudaFree(nullptr), "the GPU");
  return sessa::cuda::Run() ? 0 : 1;
}
