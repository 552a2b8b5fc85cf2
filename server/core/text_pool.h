// A few threads for long texts: parsing and tokenising a body of megabytes takes a second, which neither
// probes nor the streams of others wait for. They run below the engine's priority. The bodies that wait are
// bounded, so that what is refused is refused at once. Thread-safe.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace sessa {

class TextPool {
 public:
  // Shorter ones are worked on where they arrive: a millisecond at most.
  static constexpr size_t kLongBytes = 8 << 10;

  TextPool(int num_threads, size_t max_bytes);
  ~TextPool();  // what waits is dropped

  // False: bodies of max_bytes wait already. An empty queue takes any body. `work` must not throw.
  bool Post(size_t num_bytes, std::function<void()> work);

 private:
  struct Item {
    size_t num_bytes;
    std::function<void()> work;
  };
  void Run();

  const size_t max_bytes_;
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Item> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace sessa
