// Moves wake-ups off the engine's thread: the engine says "there is news for this stream", a thread of this
// queue detokenises and writes it. A stream that is gone by then is skipped.
#pragma once

#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace sessa {

class Wakeable {
 public:
  virtual ~Wakeable() = default;
  // Called on a thread of the queue; may come at any time, also with no news.
  virtual void OnWakeup() = 0;
};

// Thread-safe.
class WakeupQueue {
 public:
  explicit WakeupQueue(int num_threads);
  ~WakeupQueue();  // finishes the call that runs, drops the rest

  // Never blocks but for the queue's short lock.
  void Wake(std::weak_ptr<Wakeable> target);

 private:
  void Run();

  absl::Mutex mutex_;
  std::deque<std::weak_ptr<Wakeable>> pending_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace sessa
