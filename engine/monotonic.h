// The clock of deadlines, timeouts and heartbeats. It goes on evenly when the machine's clock is set, so its
// times mean nothing but in comparison with each other; what people are to read takes absl::Now(), in logs
// and in the API's `created` alone (tests/layering_test.py holds the tree to that).
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>

#include "absl/time/time.h"
#include "engine/mutex.h"

namespace sessa {

inline absl::Time MonotonicNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

// Waits until `condition` holds, which is looked at with the mutex held; false when it does not at
// `deadline`. In place of absl::Mutex's timed waits, which Abseil 20220623 counts by the wall clock.
template <class Condition>
bool WaitUntil(std::condition_variable_any* news, Mutex* mutex, absl::Time deadline, Condition condition)
    // The body is not analysed: a condition may ask for the mutex by the name that its owner knows it by.
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  while (!condition()) {
    const absl::Duration left = deadline - MonotonicNow();
    if (left <= absl::ZeroDuration()) return false;
    news->wait_for(*mutex,
                   absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));  // within chrono's range
  }
  return true;
}

}  // namespace sessa
