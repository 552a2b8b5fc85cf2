// The bounded queue between the engine's thread and one request's reader, and the sink that fills it.
// Thread-safe. Only tokens count against the bound: a prompt's and an end's event always find room.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/monotonic.h"
#include "engine/request.h"
#include "server/core/metrics.h"

namespace sessa {

struct RawEvent {
  static constexpr int kAllPrompts = -1;  // of an end that does not come from the engine
  int prompt_index = 0;
  std::variant<PromptInfo, TokenUpdate, RequestEnd> what;
};

class EventQueue {
 public:
  explicit EventQueue(int max_tokens) : max_tokens_(max_tokens) {}

  // False: the reader is gone, or (for a token) the bound is reached; nothing was put in.
  bool Push(RawEvent event) {
    std::function<void()> notify;
    {
      absl::MutexLock lock(&mutex_);
      if (closed_) return false;
      if (std::holds_alternative<TokenUpdate>(event.what)) {
        if (overflowed_ || num_tokens_ >= max_tokens_) {
          overflowed_ = true;
          return false;
        }
        ++num_tokens_;
      }
      events_.push_back(std::move(event));
      if (armed_) {
        armed_ = false;
        notify = notify_;
      }
    }
    if (notify) notify();  // outside the lock: it may take locks of its own
    return true;
  }

  // False: empty, and the next Push will notify.
  bool TryPop(RawEvent* event) {
    absl::MutexLock lock(&mutex_);
    if (events_.empty()) {
      armed_ = true;
      return false;
    }
    *event = std::move(events_.front());
    events_.pop_front();
    if (std::holds_alternative<TokenUpdate>(event->what)) --num_tokens_;
    return true;
  }

  void SetNotify(std::function<void()> notify) {
    absl::MutexLock lock(&mutex_);
    notify_ = std::move(notify);
  }

  // Ends every prompt with `status` in the engine's place; what the engine still brings is refused.
  void Fail(const absl::Status& status) {
    std::function<void()> notify;
    {
      absl::MutexLock lock(&mutex_);
      if (closed_) return;
      closed_ = true;
      RequestEnd end;
      end.status = status;
      events_.push_back({RawEvent::kAllPrompts, std::move(end)});
      if (std::exchange(armed_, false)) notify = notify_;
    }
    if (notify) notify();
  }

  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    notify_ = nullptr;
    events_.clear();
  }

  bool overflowed() const {
    absl::MutexLock lock(&mutex_);
    return overflowed_;
  }

 private:
  const int max_tokens_;
  mutable absl::Mutex mutex_;
  std::deque<RawEvent> events_ ABSL_GUARDED_BY(mutex_);
  int num_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  bool armed_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool overflowed_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> notify_ ABSL_GUARDED_BY(mutex_);
};

// One prompt's sink. The engine's thread calls it; `metrics` outlives the engine.
class PromptSink final : public TokenSink {
 public:
  PromptSink(std::shared_ptr<EventQueue> queue, Metrics* metrics, int prompt_index, int n, int max_tokens)
      : queue_(std::move(queue)),
        metrics_(metrics),
        prompt_index_(prompt_index),
        max_tokens_(max_tokens),
        choices_(n) {}

  void OnPrompt(const PromptInfo& info) override {
    metrics_->OnPrompt(info);
    queue_->Push(RawEvent{prompt_index_, info});
  }

  bool OnToken(TokenUpdate update) override {
    const absl::Time now = MonotonicNow();
    Choice& choice = choices_[update.choice];
    if (choice.num_tokens++ > 0) metrics_->OnInterToken(now - choice.last_token);
    choice.last_token = now;
    return queue_->Push(RawEvent{prompt_index_, std::move(update)});
  }

  void OnEnd(const RequestEnd& end) override {
    RequestShape shape = {static_cast<int>(choices_.size()), max_tokens_, 0};
    for (const Choice& choice : choices_)
      shape.longest_choice = std::max(shape.longest_choice, choice.num_tokens);
    metrics_->OnEnd(end, shape);
    queue_->Push(RawEvent{prompt_index_, end});
  }

 private:
  struct Choice {
    absl::Time last_token;
    int num_tokens = 0;
  };

  const std::shared_ptr<EventQueue> queue_;
  Metrics* const metrics_;
  const int prompt_index_, max_tokens_;
  std::vector<Choice> choices_;  // [n], the engine's thread only
};

}  // namespace sessa
