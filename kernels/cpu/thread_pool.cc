#include "kernels/cpu/thread_pool.h"

#include "kernels/short_slices.h"

namespace sessa {
namespace {

constexpr int kSpins = 2000;  // a few microseconds: longer than the gap between two operations of a step

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunItems(int thread) {
  for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < num_items_;) (*body_)(i, thread);
}

void ThreadPool::ParallelFor(int n, absl::FunctionRef<void(int, int)> body) {
  if (n <= 1 || workers_.empty()) {
    for (int i = 0; i < n; ++i) body(i, 0);
    return;
  }
  num_items_ = n;
  body_ = &body;
  next_.store(0, std::memory_order_relaxed);
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
  AskForShortSlices();
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
