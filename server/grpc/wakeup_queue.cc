// See wakeup_queue.h.
#include "server/grpc/wakeup_queue.h"

#include <utility>

namespace sessa {

WakeupQueue::WakeupQueue(int num_threads) {
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

WakeupQueue::~WakeupQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void WakeupQueue::Wake(std::weak_ptr<Wakeable> target) {
  absl::MutexLock lock(&mutex_);
  pending_.push_back(std::move(target));
}

void WakeupQueue::Run() {
  auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !pending_.empty(); };
  while (true) {
    std::weak_ptr<Wakeable> next;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_work));
      if (stopping_) return;
      next = std::move(pending_.front());
      pending_.pop_front();
    }
    if (std::shared_ptr<Wakeable> target = next.lock()) target->OnWakeup();
  }
}

}  // namespace sessa
