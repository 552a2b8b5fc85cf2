// See watchdog.h.
#include "server/core/watchdog.h"

#include <utility>
#include <vector>

#include "engine/monotonic.h"

namespace sessa {

Watchdog::Watchdog(absl::Duration interval, std::function<absl::Status()> check)
    : interval_(interval), check_(std::move(check)), thread_([this] { Run(); }) {}

Watchdog::~Watchdog() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  news_.notify_one();
  thread_.join();
}

void Watchdog::Watch(std::shared_ptr<EventQueue> queue) {
  MutexLock lock(&mutex_);
  queues_.insert(std::move(queue));
}

void Watchdog::Forget(const std::shared_ptr<EventQueue>& queue) {
  MutexLock lock(&mutex_);
  queues_.erase(queue);
}

void Watchdog::Run() {
  const auto stopped = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_; };
  for (bool suspected = false;;) {
    {
      MutexLock lock(&mutex_);
      if (WaitUntil(&news_, &mutex_, MonotonicNow() + interval_, stopped)) return;
    }
    const absl::Status dead = check_();
    const bool seen_before = std::exchange(suspected, !dead.ok());
    if (dead.ok() || !seen_before) continue;
    FailAll(dead);
  }
}

void Watchdog::FailAll(const absl::Status& status) {
  std::vector<std::shared_ptr<EventQueue>> queues;
  {
    MutexLock lock(&mutex_);
    queues.assign(queues_.begin(), queues_.end());
  }
  for (const auto& queue : queues)
    queue->Fail(status);  // without the lock: it notifies readers, who may call Forget
}

}  // namespace sessa
