// A fixed pool for the CPU backend: the caller works too, and an operation costs one hand-over. Workers spin
// for a short while between operations (decode steps follow each other within microseconds) and then sleep.
// ParallelFor is called by one thread at a time; items must be independent, their order is not defined. Each
// thread (of more than eight: each group of them) starts with a range of its own, the same part of all items
// in every operation, and then takes from the others' ranges: what a thread wrote for some rows, it will
// mostly be the one to read, from its own cache (between the caches of two cores of a virtual machine with
// AMX 12 GB/s were seen, where their tile units read 100).
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace sessa {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // including the caller; at least 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(item, thread) for each item in [0, n), thread in [0, num_threads()). Returns when all are
  // done.
  void ParallelFor(int n, absl::FunctionRef<void(int item, int thread)> body);

 private:
  struct alignas(64) Range {
    std::atomic<int> next{0};
    int end = 0;
  };

  void Work(int thread);
  void RunItems(int thread);

  const int num_threads_;
  std::atomic<uint32_t> generation_{0};  // odd or even does not matter; a change wakes the workers
  std::atomic<int> busy_{0};             // workers that have not finished this generation
  std::atomic<bool> stop_{false};
  std::vector<Range> ranges_;  // of the items, in order
  const absl::FunctionRef<void(int, int)>* body_ = nullptr;
  std::vector<std::thread> workers_;
};

}  // namespace sessa
