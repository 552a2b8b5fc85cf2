// The time of a run: seconds since its start on the monotonic clock, as in record.h. A copy is as good as the
// original. Thread-safe.
#pragma once

#include <chrono>

namespace sessa::loadtest {

class Clock {
 public:
  using Monotonic = std::chrono::steady_clock;
  using Duration = Monotonic::duration;

  // The run starts so many seconds from now; until then its time is below zero.
  explicit Clock(double seconds = 0) : origin_(Monotonic::now() + ToDuration(seconds)) {}
  static Duration ToDuration(double seconds) {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  }

  double Now() const { return Seconds(Monotonic::now()); }
  double Seconds(Monotonic::time_point time) const {
    return std::chrono::duration<double>(time - origin_).count();
  }
  Monotonic::time_point At(double seconds) const { return origin_ + ToDuration(seconds); }
  Monotonic::time_point origin() const { return origin_; }

 private:
  Monotonic::time_point origin_;
};

}  // namespace sessa::loadtest
