#include "kernels/cpu/thread_pool.h"

#include <algorithm>

#include "kernels/own_core.h"
#include "kernels/slices.h"

namespace sessa {
namespace {

constexpr int kMaxRanges = 8;  // each thread looks into all of them, in each operation
constexpr int kSpins = 2000;   // a few microseconds: longer than the gap between two operations of a step

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(num_threads), ranges_(std::min(num_threads, kMaxRanges)) {
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunItems(int thread) {
  const int n = static_cast<int>(ranges_.size());
  for (int r = 0; r < n; ++r) {
    Range& range = ranges_[(thread + r) % n];
    for (int i; (i = range.next.fetch_add(1, std::memory_order_relaxed)) < range.end;) (*body_)(i, thread);
  }
}

void ThreadPool::ParallelFor(int n, absl::FunctionRef<void(int, int)> body) {
  if (n <= 1 || workers_.empty()) {
    for (int i = 0; i < n; ++i) body(i, 0);
    return;
  }
  for (int64_t r = 0, begin = 0, count = std::ssize(ranges_); r < count; ++r) {
    ranges_[r].next.store(static_cast<int>(begin), std::memory_order_relaxed);
    ranges_[r].end = static_cast<int>(begin = n * (r + 1) / count);
  }
  body_ = &body;
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  RunItems(0);
  for (int spins = 0; int left = busy_.load(std::memory_order_acquire);) {
    if (++spins < kSpins) {
      Pause();
    } else {
      busy_.wait(left, std::memory_order_acquire);
    }
  }
}

void ThreadPool::Work(int thread) {
  AskForSlices(kEngineSlice);
  AskForOwnCore(thread, num_threads_);
  for (uint32_t seen = 0;;) {
    for (int spins = 0; generation_.load(std::memory_order_acquire) == seen;) {
      if (++spins < kSpins) {
        Pause();
      } else {
        generation_.wait(seen, std::memory_order_acquire);
      }
    }
    ++seen;  // one generation at a time: the next starts only when all workers are done with this one
    if (stop_.load(std::memory_order_relaxed)) return;
    RunItems(thread);
    if (busy_.fetch_sub(1, std::memory_order_release) == 1) busy_.notify_one();
  }
}

}  // namespace sessa
