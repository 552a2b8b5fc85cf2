// NcclCommunicator over NCCL itself, with as many ranks as this machine has GPUs, at most 8: one is enough
// for a group. On a machine without a GPU it skips; what happens when ranks fail is nccl_communicator_test's.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/cuda/nccl_communicator.h"

namespace sessa {
namespace {

constexpr int kRows = 5, kStride = 40;

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

  // Every rank's matrix [kRows, kStride], of which each rank fills in what is its own, after `gather`.
  std::vector<std::vector<float>> Run(const std::function<float(int rank, int row, int column)>& value,
                                      const std::function<void(Communicator*, float*)>& gather) {
    std::vector<std::vector<float>> results(size(), std::vector<float>(kRows * kStride));
    std::vector<std::thread> threads;
    for (int r = 0; r < size(); ++r) {
      threads.emplace_back([&, r] {
        std::vector<float>& host = results[r];
        for (int i = 0; i < kRows * kStride; ++i) host[i] = value(r, i / kStride, i % kStride);
        const size_t bytes = host.size() * sizeof(float);
        float* device = nullptr;
        EXPECT_EQ(cudaSetDevice(r), cudaSuccess);
        EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&device), bytes), cudaSuccess);
        EXPECT_EQ(cudaMemcpyAsync(device, host.data(), bytes, cudaMemcpyHostToDevice, streams_[r]),
                  cudaSuccess);
        for (int i = 0; i < 3; ++i) gather(ranks_[r].get(), device);  // again and again: the same
        EXPECT_EQ(cudaMemcpyAsync(host.data(), device, bytes, cudaMemcpyDeviceToHost, streams_[r]),
                  cudaSuccess);
        EXPECT_EQ(cudaStreamSynchronize(streams_[r]), cudaSuccess);
        EXPECT_TRUE(ranks_[r]->status().ok()) << ranks_[r]->status();
        (void)cudaFree(device);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return results;
  }

  std::vector<cudaStream_t> streams_;
  std::vector<std::unique_ptr<Communicator>> ranks_;
};

TEST_F(NcclGpuTest, GathersColumns) {
  constexpr int kColumns = 33;  // of a wider matrix
  std::vector<int> bounds;
  for (int r = 0; r <= size(); ++r) bounds.push_back(kColumns * r / size());
  const auto owner = [&](int c) {
    return std::upper_bound(bounds.begin(), bounds.end(), c) - bounds.begin() - 1;
  };
  const auto results = Run(
      [&](int rank, int row, int c) { return c >= kColumns || owner(c) == rank ? 100.0f * row + c : -1.0f; },
      [&](Communicator* rank, float* data) {
        rank->AllGatherColumns({data, kRows, kColumns, kStride}, bounds);
      });
  for (const auto& x : results) {
    for (int i = 0; i < kRows * kStride; ++i) ASSERT_EQ(x[i], 100.0f * (i / kStride) + i % kStride) << i;
  }
}

TEST_F(NcclGpuTest, GathersSegments) {
  std::vector<Communicator::Segment> segments;
  for (int row = 0; row < kRows; ++row)
    segments.push_back({row * kStride, (row + 1) * kStride, row % size()});
  const auto results =
      Run([&](int rank, int row, int c) { return row % size() == rank ? 100.0f * row + c : -1.0f; },
          [&](Communicator* rank, float* data) { rank->AllGatherSegments(data, segments); });
  for (const auto& x : results) {
    for (int i = 0; i < kRows * kStride; ++i) ASSERT_EQ(x[i], 100.0f * (i / kStride) + i % kStride) << i;
  }
}

}  // namespace
}  // namespace sessa
