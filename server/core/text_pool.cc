#include "server/core/text_pool.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <utility>

namespace sessa {
namespace {

// Below the thread that starts them, and so below the engine's. On a core that both want, Linux gives a
// thread that is nicer by 5 a quarter of the time, by 10 a tenth: a short text is a millisecond or less of
// work and somebody waits for it, a long one may take seconds and must not be felt by others' streams.
constexpr int kShortNice = 5, kLongNice = 10;
// Of the long ones those above 256 KiB, 25 ms of a core and more, have threads of their own below that. A
// thread of the engine that wakes waits for a nicer one that runs, to the end of its slice of up to 4 ms,
// when that has had less than its share: beside texts of 4 MB every fourteenth step took more than twice as
// long. One of the policy SCHED_IDLE gives way at once, and its core counts as free where Linux looks for
// one. Of a core that others want it has a three hundredth, which texts of that size can wait for.
constexpr size_t kHugeBytes = size_t{256} << 10;
constexpr int kIdle = 20;

// Linux: of the calling thread alone. Where a sandbox forbids even this, texts are served at the engine's
// priority.
void BeNicerBy(int nice) {
  const sched_param none = {};
  if (nice == kIdle && sched_setscheduler(0, SCHED_IDLE, &none) == 0) return;
  setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + std::min(nice, kLongNice));
}

}  // namespace

TextPool::TextPool(int num_threads, size_t max_bytes) : max_bytes_(max_bytes) {
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this] { Run(&short_, kShortNice); });
    threads_.emplace_back([this] { Run(&long_, kLongNice); });
    threads_.emplace_back([this] { Run(&long_, kIdle); });
  }
}

TextPool::~TextPool() {
  std::deque<Item> dropped[2];  // destroyed without the lock
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
    dropped[0].swap(short_.items);
    dropped[1].swap(long_.items);
  }
  for (std::thread& thread : threads_) thread.join();
}

bool TextPool::Post(size_t num_bytes, std::function<void()> work) {
  if (threads_.empty()) {
    work();
    return true;
  }
  absl::MutexLock lock(&mutex_);
  Queue& queue = num_bytes <= kLongBytes ? short_ : long_;
  if (!queue.items.empty() && queue.waiting_bytes + num_bytes > max_bytes_) return false;
  queue.waiting_bytes += num_bytes;
  queue.items.push_back({num_bytes, std::move(work)});
  return true;
}

void TextPool::Run(Queue* queue, int nice) {
  BeNicerBy(nice);
  const auto next = [queue, nice] {  // the first that is for this thread
    return std::find_if(queue->items.begin(), queue->items.end(), [nice](const Item& item) {
      return nice == kShortNice || (item.num_bytes > kHugeBytes) == (nice == kIdle);
    });
  };
  const auto news = [this, queue, &next]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || next() != queue->items.end();
  };
  while (true) {
    Item item;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&news));
      if (stop_) return;
      const auto it = next();
      item = std::move(*it);
      queue->items.erase(it);
      queue->waiting_bytes -= item.num_bytes;
    }
    item.work();
  }
}

}  // namespace sessa
