#include "server/core/short_turns.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

namespace sessa {
namespace {

constexpr long kPeriod = 1'000'000, kPause = 10'000;  // ns
// One that has worked for less when its timer comes has just been let on by another.
constexpr int64_t kMinTurn = 700'000;

thread_local int64_t turn_begin = 0;  // by its own time on a core

// The signal's handler: nothing here but what signal-safety(7) lists.
void Pause(int) {
  const int saved_errno = errno;
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  const int64_t now = int64_t{1'000'000'000} * time.tv_sec + time.tv_nsec;
  if (now - turn_begin >= kMinTurn) {
    turn_begin = now;
    const timespec pause = {0, kPause};
    pselect(0, nullptr, nullptr, nullptr, &pause, nullptr);
  }
  errno = saved_errno;
}

bool HandleSignal() {
  struct sigaction action = {};
  action.sa_handler = Pause;
  action.sa_flags = SA_RESTART;
  return sigaction(SIGRTMIN, &action, nullptr) == 0;
}

void Set(timer_t timer, long period) {
  const itimerspec time = {{0, period}, {0, period}};
  timer_settime(timer, 0, &time, nullptr);
}

}  // namespace

ShortTurns::ShortTurns() {
  static const bool handled = HandleSignal();
  if (!handled) return;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGRTMIN);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  prctl(PR_SET_TIMERSLACK, 1);  // ns: else a pause is 50 us longer
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGRTMIN;
  event._sigev_un._tid = gettid();
  timer_t timer;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0) timer_ = timer;
}

ShortTurns::~ShortTurns() {
  if (timer_.has_value()) timer_delete(*timer_);
}

void ShortTurns::Begin() {
  if (timer_.has_value()) Set(*timer_, kPeriod);
}

void ShortTurns::End() {
  if (timer_.has_value()) Set(*timer_, 0);
}

}  // namespace sessa
