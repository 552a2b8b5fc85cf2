// See listener_watch.h.
#include "server/main/listener_watch.h"

#include <cstdio>
#include <string>
#include <utility>

namespace sessa {

ListenerWatch::ListenerWatch(Service* service, std::vector<Target> targets, absl::Duration interval,
                             absl::Duration timeout)
    : service_(service), targets_(std::move(targets)), timeout_(timeout) {
  thread_ = std::thread([this, interval] {
    while (!stop_.WaitForNotificationWithTimeout(interval)) Look();
  });
}

ListenerWatch::~ListenerWatch() {
  stop_.Notify();
  thread_.join();
}

void ListenerWatch::Look() {
  bool listening = true;
  for (Target& target : targets_) {
    const absl::Status status = target.check(timeout_);
    target.num_failures = status.ok() ? 0 : target.num_failures + 1;
    if (target.num_failures == kMaxFailures)
      std::fprintf(stderr, "%s: the listener does not answer: %s\n", target.name,
                   std::string(status.message()).c_str());
    listening = listening && target.num_failures < kMaxFailures;
  }
  service_->SetListening(listening);
}

}  // namespace sessa
