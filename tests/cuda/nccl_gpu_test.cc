// NcclCommunicator over NCCL itself, with as many ranks as this machine has GPUs, at most 8: one is enough
// for a group. On a machine without a GPU it skips; what happens when ranks fail is nccl_communicator_test's.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/cuda/nccl_communicator.h"

namespace sessa {
namespace {

// Matrices that are gathered together: of few rows and of many, one under the other.
constexpr int kFewRows = 5, kManyRows = 20, kStride = 40;

class NcclGpuTest : public testing::Test {
 protected:
  void SetUp() override {
    int num_gpus = 0;
    if (cudaGetDeviceCount(&num_gpus) != cudaSuccess || num_gpus == 0) GTEST_SKIP() << "no GPU can be used";
    streams_.resize(std::min(num_gpus, 8));
    for (int r = 0; r < size(); ++r) {
      ASSERT_EQ(cudaSetDevice(r), cudaSuccess);
      ASSERT_EQ(cudaStreamCreateWithFlags(&streams_[r], cudaStreamNonBlocking), cudaSuccess);
    }
    auto ranks = MakeNcclCommunicators(streams_, {.num_ranks = size()});
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
  }
  void TearDown() override {
    ranks_.clear();
    for (cudaStream_t stream : streams_) (void)cudaStreamDestroy(stream);
  }
  int size() const { return static_cast<int>(streams_.size()); }

  std::vector<cudaStream_t> streams_;
  std::vector<std::unique_ptr<GroupCommunicator>> ranks_;
};

TEST_F(NcclGpuTest, GathersColumns) {
  constexpr int kColumns = 33, kSize = (kFewRows + kManyRows) * kStride;
  std::vector<int> bounds;
  for (int r = 0; r <= size(); ++r) bounds.push_back(kColumns * r / size());
  const auto expected = [](int i) { return 100.0f * (i / kStride) + i % kStride; };
  std::vector<std::thread> threads;
  for (int r = 0; r < size(); ++r) {
    threads.emplace_back([&, r] {
      std::vector<float> host(kSize);
      for (int i = 0; i < kSize; ++i) {
        const int c = i % kStride;
        host[i] = c >= kColumns || (c >= bounds[r] && c < bounds[r + 1]) ? expected(i) : -1;
      }
      constexpr size_t kBytes = kSize * sizeof(float);
      float* device = nullptr;
      EXPECT_EQ(cudaSetDevice(r), cudaSuccess);
      EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&device), kBytes), cudaSuccess);
      EXPECT_EQ(cudaMemcpyAsync(device, host.data(), kBytes, cudaMemcpyHostToDevice, streams_[r]),
                cudaSuccess);
      const Matrix few{device, kFewRows, kColumns, kStride},
          many{device + kFewRows * kStride, kManyRows, kColumns, kStride};
      for (int i = 0; i < 3; ++i) ranks_[r]->AllGather({{few, bounds}, {many, bounds}});  // again: the same
      EXPECT_EQ(cudaMemcpyAsync(host.data(), device, kBytes, cudaMemcpyDeviceToHost, streams_[r]),
                cudaSuccess);
      EXPECT_EQ(cudaStreamSynchronize(streams_[r]), cudaSuccess);
      EXPECT_TRUE(ranks_[r]->status().ok()) << ranks_[r]->status();
      for (int i = 0; i < kSize; ++i) EXPECT_EQ(host[i], expected(i)) << i;
      (void)cudaFree(device);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sessa
