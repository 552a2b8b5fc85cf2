// The emulator itself: that barriers and shuffles are real, and that it sees what a GPU would not forgive.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.h"

namespace sessa::cuda {
namespace {

// Each thread adds what its neighbour wrote, step by step: a Hillis-Steele scan over the block.
template <bool kBarriers>
void ScanKernel(const unsigned* in, unsigned* out) {
  unsigned* shared = static_cast<unsigned*>(DynamicShared());
  const int i = threadIdx.x, n = blockDim.x;
  shared[i] = in[blockIdx.x * n + i];
  for (int step = 1; step < n; step *= 2) {
    if (kBarriers) __syncthreads();
    const unsigned left = i >= step ? shared[i - step] : 0;
    if (kBarriers) __syncthreads();
    shared[i] += left;
  }
  out[blockIdx.x * n + i] = shared[i];
}

template <bool kBarriers>
int WrongScans() {
  std::vector<unsigned> in(4 * 128), out(in.size());
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<unsigned>(i * 7 % 13);
  Launch(nullptr, dim3(4), 128, 128 * sizeof(unsigned), ScanKernel<kBarriers>, in.data(), out.data());
  int wrong = 0;
  for (int b = 0; b < 4; ++b) {
    unsigned sum = 0;
    for (int i = 0; i < 128; ++i) wrong += (sum += in[b * 128 + i]) != out[b * 128 + i];
  }
  return wrong;
}

TEST(EmulatorTest, BarriersAreReal) { EXPECT_EQ(WrongScans<true>(), 0); }
TEST(EmulatorTest, AMissingBarrierShows) { EXPECT_GT(WrongScans<false>(), 0); }

void ButterflyKernel(float* sums, const float* seed) {
  float x = seed[threadIdx.x];
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffu, x, mask);
  sums[threadIdx.x] = x;
}

TEST(EmulatorTest, ShufflesStayInTheirWarp) {
  std::vector<float> seed(96), sums(96);
  for (int i = 0; i < 96; ++i) seed[i] = static_cast<float>(i);
  Launch(nullptr, dim3(1), 96, 0, ButterflyKernel, sums.data(), seed.data());
  for (int i = 0; i < 96; ++i) EXPECT_EQ(sums[i], static_cast<float>(i / 32 * 32 * 32 + 31 * 16));
}

void UnwrittenKernel(float* out) { out[threadIdx.x] = static_cast<float*>(DynamicShared())[threadIdx.x]; }

TEST(EmulatorTest, SharedMemoryStartsAsNaN) {
  std::vector<float> out(32);
  Launch(nullptr, dim3(2), 32, 128, UnwrittenKernel, out.data());
  for (float x : out) EXPECT_TRUE(x != x);
}

void HalfBarrierKernel() {
  if (threadIdx.x < 32) __syncthreads();
}
void HalfShuffleKernel(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
}
void EmptyKernel() {}

TEST(EmulatorDeathTest, EndsWhatAGpuWouldNotForgive) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  int out[32];
  EXPECT_DEATH(Launch(nullptr, dim3(1), 64, 0, HalfBarrierKernel),
               "__syncthreads that a thread never reaches");
  EXPECT_DEATH(Launch(nullptr, dim3(1), 32, 0, HalfShuffleKernel, &out[0]),
               "a warp-wide operation that a lane has left");
  EXPECT_DEATH(Launch(nullptr, dim3(1), 32, 228 << 10, EmptyKernel), "too much shared memory");
  EXPECT_DEATH(Launch(nullptr, dim3(1, 70000), 32, 0, EmptyKernel), "no device takes this grid");
  EXPECT_DEATH(Launch(nullptr, dim3(1), 2048, 0, EmptyKernel), "at most 1024 threads");
}

// One warp: d = a b with a [16, 16] and b [16, 8] row-major, and b again through b^T [8, 16], row-major.
void MultiplyKernel(const Bf16* a, const Bf16* b, const Bf16* bt, float* d, float* dt) {
  auto* shared = static_cast<Bf16*>(DynamicShared());  // a, then b, then bt
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  for (int i = lane; i < 256; i += 32) shared[i] = a[i];
  for (int i = lane; i < 128; i += 32) shared[256 + i] = b[i], shared[384 + i] = bt[i];
  __syncwarp();
  unsigned x[4], y[4], z[4];
  LoadMatrices(x, shared + lane % 16 * 16 + lane / 16 * 8);
  LoadMatricesTransposed(y, shared + 256 + lane % 16 * 8);           // two matrices, twice
  LoadMatrices(z, shared + 384 + lane % 8 * 16 + lane / 8 % 2 * 8);  // two matrices, twice
  float p[4] = {}, q[4] = {};
  MultiplyBf16(p, x, y[0], y[1]);
  MultiplyBf16(q, x, z[2], z[3]);
  for (int i = 0; i < 4; ++i) {
    const int at = (g + i / 2 * 8) * 8 + 2 * t + i % 2;
    d[at] = p[i], dt[at] = q[i];
  }
}

TEST(EmulatorTest, TensorCoresMultiply) {
  std::vector<Bf16> a(256), b(128), bt(128);
  for (int i = 0; i < 256; ++i) a[i] = RoundToBf16(static_cast<float>(i * 37 % 101 - 50));
  for (int k = 0; k < 16; ++k) {
    for (int n = 0; n < 8; ++n)
      b[k * 8 + n] = bt[n * 16 + k] = RoundToBf16(static_cast<float>((k * 8 + n) * 29 % 67 - 30));
  }
  std::vector<float> d(128), dt(128), expected(128);
  for (int i = 0; i < 16; ++i) {
    for (int n = 0; n < 8; ++n) {
      for (int k = 0; k < 16; ++k) expected[i * 8 + n] += ToFloat(a[i * 16 + k]) * ToFloat(b[k * 8 + n]);
    }
  }
  Launch(nullptr, dim3(1), 32, 1024, MultiplyKernel, a.data(), b.data(), bt.data(), d.data(), dt.data());
  EXPECT_EQ(d, expected);  // whole numbers: exact
  EXPECT_EQ(dt, expected);
}

template <bool kWaits>
void CopyKernel(const float4* in, float4* out) {
  auto* shared = static_cast<float4*>(DynamicShared());
  CopyAsync(&shared[threadIdx.x], &in[threadIdx.x], threadIdx.x % 2 == 0);
  CommitCopies();
  if (kWaits) WaitForCopies<0>();
  out[threadIdx.x] = shared[threadIdx.x];
}

TEST(EmulatorTest, CopiesMayBeLate) {
  for (bool waits : {true, false}) {
    std::vector<float4> in(32, float4{1, 2, 3, 4}), out(32);
    int wrong = 0;
    for (int block = 0; block < 2; ++block) {  // one of the two comes late
      Launch(nullptr, dim3(1), 32, 32 * sizeof(float4), waits ? CopyKernel<true> : CopyKernel<false>,
             in.data(), out.data());
      for (int i = 0; i < 32; ++i) wrong += !(out[i].w == (i % 2 == 0 ? 4 : 0));
    }
    EXPECT_EQ(wrong, waits ? 0 : 32);
  }
}

void AddKernel(int* x, int y) {
  BeginKernel();
  x[threadIdx.x] += y;
}

TEST(EmulatorTest, AGraphRunsWhenItIsLaunched) {
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  std::vector<int> x(32, 1);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  Launch(stream, dim3(1), 32, 0, AddKernel, x.data(), 2);
  Launch(stream, dim3(1), 32, 0, AddKernel, x.data(), 3);
  cudaGraph_t graph;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t executable;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  cudaGraphDestroy(graph);
  EXPECT_EQ(x, std::vector<int>(32, 1));
  cudaGraphLaunch(executable, stream);
  EXPECT_EQ(x, std::vector<int>(32, 6));
  cudaGraphLaunch(executable, stream);
  EXPECT_EQ(x, std::vector<int>(32, 11));
  cudaGraphExecDestroy(executable);
  cudaStreamDestroy(stream);
}

TEST(EmulatorDeathTest, EndsWhatRunsIntoTheKernelsBefore) {
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  EXPECT_DEATH(Launch(stream, dim3(1), 32, 0, EmptyKernel), "does not call BeginKernel");
  cudaStreamDestroy(stream);
}

TEST(EmulatorDeathTest, EndsWhatSpoilsACapture) {
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  void* p = nullptr;
  EXPECT_DEATH(cudaMalloc(&p, 1), "cudaMalloc while a stream captures");
  EXPECT_DEATH(cudaStreamSynchronize(stream), "cudaStreamSynchronize while a stream captures");
  cudaGraph_t graph;
  cudaStreamEndCapture(stream, &graph);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST(EmulatorDeathTest, EndsWhatMisusesAPool) {
  const cudaMemPoolProps props = {cudaMemAllocationTypePinned, {cudaMemLocationTypeDevice, 0}};
  cudaMemPool_t pool;
  cudaMemPoolCreate(&pool, &props);
  void *p = nullptr, *other = nullptr;
  EXPECT_DEATH(cudaMallocFromPoolAsync(&p, 1, pool, nullptr), "gives back what is freed");
  uint64_t keep = UINT64_MAX;
  cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
  ASSERT_EQ(cudaMallocFromPoolAsync(&p, 1, pool, nullptr), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&other, 1), cudaSuccess);
  EXPECT_DEATH(cudaFree(p), "a pool's memory");
  EXPECT_DEATH(cudaFreeAsync(other, nullptr), "not a pool's");
  EXPECT_DEATH(cudaMemPoolDestroy(pool), "before its memory");
  cudaFreeAsync(p, nullptr);
  cudaFree(other);
  cudaMemPoolDestroy(pool);
}

}  // namespace
}  // namespace sessa::cuda
