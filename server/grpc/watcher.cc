// See watcher.h.
#include "server/grpc/watcher.h"

#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace sessa {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(250);

}  // namespace

CallWatcher::CallWatcher() : thread_([this] { Run(); }) {}

CallWatcher::~CallWatcher() {
  stop_.Notify();
  thread_.join();
}

void CallWatcher::Add(std::weak_ptr<WatchedCall> call) {
  absl::MutexLock lock(&mutex_);
  calls_.push_back(std::move(call));
}

void CallWatcher::Run() {
  while (!stop_.WaitForNotificationWithTimeout(kInterval)) {
    std::vector<std::shared_ptr<WatchedCall>> calls;
    {
      absl::MutexLock lock(&mutex_);
      for (auto it = calls_.begin(); it != calls_.end();) {
        if (std::shared_ptr<WatchedCall> call = it->lock()) {
          calls.push_back(std::move(call));
          ++it;
        } else {
          it = calls_.erase(it);
        }
      }
    }
    const auto now = WatchedCall::Clock::now();
    for (const auto& call : calls) call->Watch(now);
  }
}

}  // namespace sessa
