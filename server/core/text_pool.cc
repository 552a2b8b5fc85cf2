#include "server/core/text_pool.h"

#include <utility>

#include "kernels/slices.h"
#include "server/core/short_turns.h"

namespace sessa {
namespace {

// Below the thread that starts them, and so below the engine's. On a core that both want, Linux gives a
// thread that is nicer by 5 a quarter of the time, by 9 an eighth: a short text is a millisecond or less of
// work and somebody waits for it, a long one may take seconds and must not be felt by others' streams.
constexpr int kShortNice = 5;

}  // namespace

TextPool::TextPool(int num_threads, size_t max_bytes) : max_bytes_(max_bytes) {
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this] { Run(&short_, kShortNice); });
    threads_.emplace_back([this] { Run(&long_, kLongNice); });
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
  BeNicer(nice);
  ShortTurns turns;
  const auto news = [this, queue]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || !queue->items.empty(); };
  while (true) {
    Item item;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&news));
      if (stop_) return;
      item = std::move(queue->items.front());
      queue->items.pop_front();
      queue->waiting_bytes -= item.num_bytes;
    }
    turns.Begin();
    item.work();
    item.work = nullptr;  // with what it held
    turns.End();
  }
}

}  // namespace sessa
