// A limit in the long run that lets a burst through: a bucket that fills at a rate up to its size, from which
// what is used is taken. Time is MonotonicNow()'s and comes from the caller. Not thread-safe.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace sessa {

class TokenBucket {
 public:
  // Full at first; with a rate before, what was used of that stays used. `rate` 0: no limit.
  void SetRate(double rate_per_second, double size, absl::Time now) {
    Fill(now);
    const double used = limited() ? size_ - level_ : 0;
    rate_ = rate_per_second;
    size_ = size;
    level_ = size_ - used;
  }
  bool limited() const { return rate_ > 0; }
  double size() const { return size_; }

  // What is there, below 0 when more was taken than there was.
  double Level(absl::Time now) const {
    return std::min(size_, level_ + rate_ * absl::ToDoubleSeconds(now - filled_));
  }
  // How long until `amount` can be taken; zero: now. What is larger than the bucket can be taken when it is
  // full: it is never refused for ever, and who comes after it waits for longer.
  absl::Duration TimeUntil(double amount, absl::Time now) const {
    if (!limited()) return absl::ZeroDuration();
    const double seconds = (std::min(amount, size_) - Level(now)) / rate_;
    return seconds > kRounding ? absl::Seconds(seconds) : absl::ZeroDuration();
  }
  absl::Duration TimeUntilFull(absl::Time now) const { return TimeUntil(size_, now); }
  void Take(double amount, absl::Time now) {
    Fill(now);
    level_ -= amount;
  }
  void GiveBack(double amount, absl::Time now) {
    Fill(now);
    level_ = std::min(size_, level_ + amount);
  }

 private:
  // Seconds: so that who waited for as long as it was told, in whole milliseconds, is not a hair too early.
  static constexpr double kRounding = 1e-6;

  void Fill(absl::Time now) {
    level_ = Level(now);
    filled_ = now;
  }

  double rate_ = 0, size_ = 0, level_ = 0;
  absl::Time filled_ = absl::UnixEpoch();
};

}  // namespace sessa
