#include "server/core/text_pool.h"

#include <sys/resource.h>

#include <utility>

namespace sessa {
namespace {

constexpr int kNice = 5;  // a third of the time of a thread of the engine on the same core

}  // namespace

TextPool::TextPool(int num_threads, size_t max_bytes) : max_bytes_(max_bytes) {
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

TextPool::~TextPool() {
  std::deque<Item> dropped;  // destroyed without the lock
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
    dropped.swap(queue_);
  }
  for (std::thread& thread : threads_) thread.join();
}

bool TextPool::Post(size_t num_bytes, std::function<void()> work) {
  absl::MutexLock lock(&mutex_);
  if (!queue_.empty() && waiting_bytes_ + num_bytes > max_bytes_) return false;
  waiting_bytes_ += num_bytes;
  queue_.push_back({num_bytes, std::move(work)});
  return true;
}

void TextPool::Run() {
  setpriority(PRIO_PROCESS, 0, kNice);  // Linux: of this thread alone
  const auto news = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || !queue_.empty(); };
  while (true) {
    Item item;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&news));
      if (stop_) return;
      item = std::move(queue_.front());
      queue_.pop_front();
      waiting_bytes_ -= item.num_bytes;
    }
    item.work();
  }
}

}  // namespace sessa
