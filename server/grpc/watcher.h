// Looks after calls whose clients do not read, and which gRPC itself would keep for ever: a thread that asks
// each of them now and then.
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace sessa {

class WatchedCall {
 public:
  using Clock = std::chrono::steady_clock;
  virtual ~WatchedCall() = default;
  // Gives itself up when it has made no progress for too long. Called on the watcher's thread, at any time.
  virtual void Watch(Clock::time_point now) = 0;
};

// Thread-safe.
class CallWatcher {
 public:
  CallWatcher();
  ~CallWatcher();

  void Add(std::weak_ptr<WatchedCall> call);

 private:
  void Run();

  absl::Mutex mutex_;
  std::list<std::weak_ptr<WatchedCall>> calls_ ABSL_GUARDED_BY(mutex_);
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace sessa
