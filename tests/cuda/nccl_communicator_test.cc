// NcclCommunicator over an NCCL and a CUDA runtime made up here: ranks are threads, device memory is the
// host's, and a collective can fail, hang or end with an asynchronous error at will.
#include "kernels/cuda/nccl_communicator.h"

#include <gtest/gtest.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <iterator>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Broadcast {
  const void* from;
  void* to;
  size_t bytes;
  int root;
};

// The group that the test in progress has, and how it misbehaves.
struct FakeGroup {
  std::vector<std::vector<Broadcast>> calls;  // of each rank, in its group call
  std::unique_ptr<std::barrier<>> meet;
  std::atomic<bool> hangs{false};
  std::atomic<ncclResult_t> call_error{ncclSuccess}, async_error{ncclSuccess}, init_error{ncclSuccess};
  std::mutex mutex;  // of the group's making
  std::atomic<int> num_calls{0}, num_aborted{0}, num_destroyed{0}, num_pools{0}, num_allocations{0};
};
FakeGroup* group = nullptr;
thread_local int rank_in_group = -1;

}  // namespace

struct ncclComm {
  int rank;
};

struct FakePool {
  int gpu;
  bool keeps_all = false;
  std::set<int> peers = {};
};
static FakePool& PoolOf(cudaMemPool_t pool) { return *reinterpret_cast<FakePool*>(pool); }
constexpr int kFarGpu = 3;  // reaches no other's memory

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::fill(std::begin(id->internal), std::end(id->internal), 'i');
  return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  std::lock_guard<std::mutex> lock(group->mutex);
  if (group->init_error != ncclSuccess && rank > 0) return group->init_error;
  if (std::any_of(std::begin(id.internal), std::end(id.internal), [](char c) { return c != 'i'; }))
    std::abort();
  if (group->calls.size() != static_cast<size_t>(size)) {
    group->calls.resize(size);
    group->meet = std::make_unique<std::barrier<>>(size);
  }
  *comm = new ncclComm{rank};
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  ++group->num_destroyed;
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  ++group->num_aborted;
  delete comm;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t error) {
  return error == ncclRemoteError ? "remote" : error == ncclSystemError ? "system" : "other";
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
  *error = group->async_error;
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() {
  rank_in_group = -1;
  return ncclSuccess;
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t) {
  ++group->num_calls;
  if (group->call_error != ncclSuccess) return group->call_error;
  if (type != ncclFloat) std::abort();
  if (rank_in_group < 0) group->calls[comm->rank].clear();
  rank_in_group = comm->rank;
  group->calls[comm->rank].push_back({from, to, count * sizeof(float), root});
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (group->hangs || rank_in_group < 0) return ncclSuccess;
  group->meet->arrive_and_wait();
  const std::vector<Broadcast>& own = group->calls[rank_in_group];
  for (size_t i = 0; i < own.size(); ++i) {
    const Broadcast& root = group->calls[own[i].root].at(i);
    if (root.bytes != own[i].bytes || root.root != own[i].root)
      std::abort();  // NCCL would hang or corrupt memory
    if (root.root != rank_in_group) std::memcpy(own[i].to, root.from, root.bytes);
  }
  group->meet->arrive_and_wait();
  return ncclSuccess;
}

cudaError_t cudaSetDevice(int) { return cudaSuccess; }
// No cudaMalloc, no cudaFree: they may wait for a GPU whose rank already waits for this one, so that a call
// of theirs does not link. Who may reach the memory of a pool is said before any is taken from it.
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* props) {
  *pool = reinterpret_cast<cudaMemPool_t>(new FakePool{props->location.id});
  ++group->num_pools;
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete &PoolOf(pool);
  --group->num_pools;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  if (attribute == cudaMemPoolAttrReleaseThreshold)
    PoolOf(pool).keeps_all = *static_cast<uint64_t*>(value) == UINT64_MAX;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* reaches, int gpu, int peer) {
  *reaches = gpu != kFarGpu && peer != kFarGpu;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, const cudaMemAccessDesc* peers, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (peers[i].flags != cudaMemAccessFlagsProtReadWrite) std::abort();
    PoolOf(pool).peers.insert(peers[i].location.id);
  }
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** p, size_t bytes, cudaMemPool_t pool, cudaStream_t) {
  const FakePool& from = PoolOf(pool);
  const int gpus = static_cast<int>(group->calls.size());
  for (int peer = 0; from.gpu != kFarGpu && peer < gpus; ++peer) {
    if (peer != from.gpu && peer != kFarGpu && !from.peers.contains(peer)) std::abort();
  }
  if (!from.keeps_all) std::abort();
  *p = std::malloc(bytes);
  ++group->num_allocations;
  return *p != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
  std::free(p);
  --group->num_allocations;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return "error"; }
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t) {
  for (size_t i = 0; i < height; ++i) {
    std::memcpy(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(from) + i * from_pitch,
                width);
  }
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new int);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<int*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return group->hangs ? cudaErrorNotReady : cudaSuccess; }

namespace sessa {
namespace {

class NcclCommunicatorTest : public testing::Test {
 protected:
  NcclCommunicatorTest() { group = &group_; }

  void Make(int size, std::chrono::milliseconds limit = kCollectiveLimit) {
    auto ranks = MakeNcclCommunicators(std::vector<cudaStream_t>(size), {.num_ranks = size}, limit);
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
  }
  void OnEachRank(const std::function<void(Communicator*)>& body) {
    std::vector<std::thread> threads;
    for (auto& rank : ranks_) threads.emplace_back([&body, &rank] { body(rank.get()); });
    for (std::thread& thread : threads) thread.join();
  }
  void Gather(Communicator* rank) {
    const int size = static_cast<int>(ranks_.size());
    std::vector<float> data(size, -1);
    data[rank->rank()] = static_cast<float>(rank->rank());
    std::vector<int> bounds;
    for (int r = 0; r <= size; ++r) bounds.push_back(r);
    rank->AllGather({{{data.data(), 1, size, size}, bounds}});
    for (int r = 0; rank->status().ok() && !group_.hangs && r < size; ++r) EXPECT_EQ(data[r], r);
  }
  // The watch needs its time; that it never ends is for the test runner to see.
  void WaitForFailure() {
    for (auto& rank : ranks_) {
      while (rank->status().ok()) std::this_thread::yield();
    }
  }

  FakeGroup group_;
  std::vector<std::unique_ptr<GroupCommunicator>> ranks_;
};

TEST_F(NcclCommunicatorTest, GathersColumns) {
  for (int size : {1, 2, 4}) {
    Make(size);
    constexpr int kCols = 10, kStride = 12;
    const std::vector<int> rows = {1, 3, 8, 9, 20};           // of matrices that are gathered together
    const std::vector<int> all_bounds = {0, 3, 3, 4, kCols};  // uneven, one of them empty
    std::vector<int> bounds(all_bounds.begin(), all_bounds.begin() + size + 1);
    bounds.back() = kCols;
    OnEachRank([&](Communicator* rank) {
      std::vector<std::vector<float>> data;
      std::vector<Communicator::Columns> parts;
      for (int n : rows) {
        std::vector<float>& x = data.emplace_back(n * kStride, -1);
        for (int r = 0; r < n; ++r) {
          for (int c = bounds[rank->rank()]; c < bounds[rank->rank() + 1]; ++c)
            x[r * kStride + c] = 1000 * n + 100 * r + c;
        }
        parts.push_back({{x.data(), n, kCols, kStride}, bounds});
      }
      for (int again = 0; again < 2; ++again) rank->AllGather(parts);
      for (size_t p = 0; p < rows.size(); ++p) {
        for (int i = 0; i < rows[p] * kStride; ++i) {
          const int r = i / kStride, c = i % kStride;
          EXPECT_EQ(data[p][i], c < kCols ? 1000 * rows[p] + 100 * r + c : -1) << rows[p] << ", " << i;
        }
      }
      EXPECT_TRUE(rank->status().ok());
    });
    EXPECT_EQ(group_.num_allocations, size) << "rows that are packed";
    ranks_.clear();
    EXPECT_EQ(group_.num_aborted, 0);
    EXPECT_EQ(group_.num_pools + group_.num_allocations, 0);
  }
  EXPECT_EQ(group_.num_destroyed, 1 + 2 + 4);
}

// Two processes with two ranks each, which only share the id.
TEST_F(NcclCommunicatorTest, ProcessesShareTheId) {
  std::promise<std::string> first;
  std::shared_future<std::string> id = first.get_future().share();
  std::vector<std::thread> processes;
  std::vector<std::vector<std::unique_ptr<GroupCommunicator>>> ranks(2);
  for (int p = 0; p < 2; ++p) {
    processes.emplace_back([&, p] {
      const auto share = [&, p](std::string own) -> absl::StatusOr<std::string> {
        EXPECT_EQ(own.size(), p == 0 ? sizeof(ncclUniqueId) : 0);
        if (p == 0) first.set_value(own);
        return id.get();
      };
      auto made = MakeNcclCommunicators(std::vector<cudaStream_t>(2), {4, 2 * p, share});
      ASSERT_TRUE(made.ok()) << made.status();
      ranks[p] = *std::move(made);
    });
  }
  for (std::thread& process : processes) process.join();
  for (auto& own : ranks) std::move(own.begin(), own.end(), std::back_inserter(ranks_));
  OnEachRank([&](Communicator* rank) {
    EXPECT_EQ(rank->size(), 4);
    Gather(rank);
  });
}

TEST_F(NcclCommunicatorTest, WhatCannotBeMadeSaysWhy) {
  const auto make = [](NcclGroup of) {
    return MakeNcclCommunicators(std::vector<cudaStream_t>(of.num_ranks), of).status();
  };
  const auto lost = [](std::string) -> absl::StatusOr<std::string> { return absl::DataLossError("no file"); };
  EXPECT_EQ(make({2, 0, lost}), absl::DataLossError("no file"));
  EXPECT_NE(make({2, 0, [](std::string) { return std::string("short"); }}).message().find("5 bytes"),
            std::string::npos);
  group_.init_error = ncclSystemError;
  const absl::Status status = make({.num_ranks = 2});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "NCCL over 2 GPUs: system");
  EXPECT_EQ(group_.num_aborted, 1);  // the rank that was made before
}

TEST_F(NcclCommunicatorTest, AnAsynchronousErrorAbortsAndSaysWhy) {
  Make(2);
  group_.async_error = ncclRemoteError;
  WaitForFailure();
  for (auto& rank : ranks_) {
    EXPECT_EQ(rank->status().code(), absl::StatusCode::kUnavailable);
    EXPECT_NE(rank->status().message().find("remote"), std::string::npos) << rank->status();
    Gather(rank.get());  // does nothing
  }
  EXPECT_EQ(group_.num_calls, 0);
  ranks_.clear();
  EXPECT_EQ(group_.num_aborted, 2);
  EXPECT_EQ(group_.num_destroyed, 0);
}

TEST_F(NcclCommunicatorTest, ACollectiveThatHangsIsAborted) {
  Make(2, std::chrono::milliseconds(20));
  OnEachRank([this](Communicator* rank) { Gather(rank); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  for (auto& rank : ranks_) EXPECT_TRUE(rank->status().ok());  // it was done, however long ago
  group_.hangs = true;
  OnEachRank([this](Communicator* rank) { Gather(rank); });
  WaitForFailure();
  for (auto& rank : ranks_) {
    EXPECT_EQ(rank->status().code(), absl::StatusCode::kUnavailable);
    EXPECT_NE(rank->status().message().find("within 20 ms"), std::string::npos) << rank->status();
  }
  ranks_.clear();
  EXPECT_EQ(group_.num_aborted, 2);
}

// Another has found that a rank's process is gone: nobody waits for the limit.
TEST_F(NcclCommunicatorTest, GivingUpAborts) {
  Make(2);
  group_.hangs = true;
  OnEachRank([this](Communicator* rank) { Gather(rank); });
  for (auto& rank : ranks_) {
    rank->GiveUp(absl::UnavailableError("rank 1 is lost"));
    rank->GiveUp(absl::UnavailableError("again"));
    EXPECT_EQ(rank->status().code(), absl::StatusCode::kUnavailable);
    EXPECT_NE(rank->status().message().find("rank 1 is lost"), std::string::npos) << rank->status();
    Gather(rank.get());  // does nothing
  }
  ranks_.clear();
  EXPECT_EQ(group_.num_aborted, 2);
  EXPECT_EQ(group_.num_destroyed, 0);
}

TEST_F(NcclCommunicatorTest, ACallThatFailsAborts) {
  Make(1);
  group_.call_error = ncclSystemError;
  Gather(ranks_[0].get());
  EXPECT_EQ(ranks_[0]->status().message(), "NCCL, rank 0: broadcast: system");
  ranks_.clear();
  EXPECT_EQ(group_.num_aborted, 1);
}

}  // namespace
}  // namespace sessa
