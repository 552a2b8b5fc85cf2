// SIGTERM, SIGINT and SIGHUP as ordinary events on a thread that waits for them: no code runs in a signal
// handler.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>
#include <utility>

namespace sessa {

class SignalThread {
 public:
  // Call first in main: threads started later inherit the mask. Writers see EPIPE and EFBIG instead of
  // signals.
  static void Block() {
    const sigset_t signals = Signals();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
  }

  // Calls `on_signal(1)`, `on_signal(2)`, ... and at each SIGHUP `on_hangup` on its thread, in order.
  SignalThread(std::function<void(int count)> on_signal, std::function<void()> on_hangup)
      : thread_([this, on_signal = std::move(on_signal), on_hangup = std::move(on_hangup)] {
          const sigset_t signals = Signals();
          for (int count = 1;;) {
            int number = 0;
            if (sigwait(&signals, &number) != 0) continue;
            if (stopping_.load()) return;
            if (number == SIGUSR2) continue;
            number == SIGHUP ? on_hangup() : on_signal(count++);
          }
        }) {}
  ~SignalThread() {
    stopping_.store(true);
    pthread_kill(thread_.native_handle(), SIGUSR2);  // blocked everywhere, so only the sigwait above sees it
    thread_.join();
  }

 private:
  static sigset_t Signals() {
    sigset_t signals;
    sigemptyset(&signals);
    for (int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) sigaddset(&signals, number);
    return signals;
  }

  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace sessa
