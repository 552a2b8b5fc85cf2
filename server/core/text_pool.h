// A few threads for work on texts: parsing, templates, tokenising. A body of megabytes takes a second, and a
// short one may be slow too, where a template loops: threads that accept, answer probes or write do none of
// it. Short and long texts have threads of their own, so that a chat does not wait behind a book. They run
// below the engine's priority, in short turns. What waits is bounded, so that what is refused is refused at
// once. Thread-safe.
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
  static constexpr size_t kLongBytes = 8 << 10;  // more than so many are long
  static constexpr int kLongNice = 9;            // threads for long ones are nicer by so much

  // So many threads for short texts, and as many for long ones. 0: who posts does the work, so that a fuzz
  // target does the same each time.
  TextPool(int num_threads, size_t max_bytes);
  ~TextPool();  // what waits is dropped

  // False: texts of max_bytes wait already, of its kind. An empty queue takes any. `work` must not throw.
  bool Post(size_t num_bytes, std::function<void()> work);

 private:
  struct Item {
    size_t num_bytes;
    std::function<void()> work;
  };
  struct Queue {
    std::deque<Item> items;
    size_t waiting_bytes = 0;
  };
  void Run(Queue* queue, int nice);

  const size_t max_bytes_;
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  Queue short_ ABSL_GUARDED_BY(mutex_), long_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace sessa
