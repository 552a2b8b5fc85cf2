// See listener_watch.h.
#include "server/core/listener_watch.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/log.h"

namespace sessa {

ListenerWatch::ListenerWatch(Service* service, std::vector<Target> targets, absl::Duration interval,
                             absl::Duration timeout)
    : service_(service), targets_(std::move(targets)), timeout_(timeout) {
  thread_ = std::thread([this, interval] { Run(interval); });
}

void ListenerWatch::Run(absl::Duration interval) {
  const auto stopped = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_; };
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (WaitUntil(&stopped_, &mutex_, MonotonicNow() + interval, stopped)) return;
    }
    Look();
  }
}

ListenerWatch::~ListenerWatch() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  stopped_.notify_one();
  thread_.join();
}

void ListenerWatch::Look() {
  bool listening = true;
  for (Target& target : targets_) {
    const absl::Status status = target.check(timeout_);
    target.num_failures = status.ok() ? 0 : target.num_failures + 1;
    if (target.num_failures == kMaxFailures)
      Log(absl::StrCat(target.name, ": the listener does not answer: ", status.message()), LogLevel::kError);
    listening = listening && target.num_failures < kMaxFailures;
  }
  service_->SetListening(listening);
}

}  // namespace sessa
