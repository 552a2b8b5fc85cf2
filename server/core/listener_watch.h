// Liveness of the listeners: a thread that connects to each main port as clients do, every few seconds, and
// tells the Service whether it was answered. One answer that fails to come is load or chance; three in a row
// are a listener that takes nothing any more, which only a new process mends.
#pragma once

#include <condition_variable>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/monotonic.h"
#include "server/core/service.h"

namespace sessa {

class ListenerWatch {
 public:
  static constexpr int kMaxFailures = 3;
  // Tries the listener for so long.
  using Check = std::function<absl::Status(absl::Duration timeout)>;
  struct Target {
    const char* name;
    Check check;
    int num_failures = 0;
  };

  // What `targets` use and `service` outlive this.
  ListenerWatch(Service* service, std::vector<Target> targets, absl::Duration interval = absl::Seconds(5),
                absl::Duration timeout = absl::Seconds(10));
  ~ListenerWatch();

 private:
  void Run(absl::Duration interval);
  void Look();

  Service* const service_;
  std::vector<Target> targets_;  // of the thread
  const absl::Duration timeout_;
  Mutex mutex_;
  std::condition_variable_any stopped_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sessa
