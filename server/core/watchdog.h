// Ends the requests of an engine that hangs in a step: its own thread can end them no more, and their clients
// would wait for as long as they have patience. A thread of its own looks; what it ends is counted as every
// end is. Thread-safe.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/mutex.h"
#include "server/core/event_queue.h"

namespace sessa {

class Watchdog {
 public:
  // `check` says why the engine is dead, OK while it is not; it is called every `interval`, without locks.
  // Twice in turn it must say so: after the whole process was stopped for a while the engine gets an interval
  // to turn again.
  Watchdog(absl::Duration interval, std::function<absl::Status()> check);
  ~Watchdog();

  // From now until Forget the queue is failed when the engine is dead.
  void Watch(std::shared_ptr<EventQueue> queue);
  void Forget(const std::shared_ptr<EventQueue>& queue);
  void FailAll(const absl::Status& status);

 private:
  void Run();

  const absl::Duration interval_;
  const std::function<absl::Status()> check_;
  Mutex mutex_;
  std::condition_variable_any news_;
  absl::flat_hash_set<std::shared_ptr<EventQueue>> queues_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace sessa
