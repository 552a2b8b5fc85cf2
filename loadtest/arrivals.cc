// See arrivals.h.
#include "loadtest/arrivals.h"

#include <cmath>
#include <random>

namespace sessa::loadtest {
namespace {

// The t >= 0 for which rate t + slope t^2 / 2 = count; none: it is never reached. The form of the root that
// does not cancel when the slope is small.
std::optional<double> TimeOfCount(double rate, double slope, double count) {
  const double root = rate * rate + 2 * slope * count;
  if (root < 0) return std::nullopt;
  const double divisor = rate + std::sqrt(root);
  return count == 0 ? 0 : divisor > 0 ? std::optional(2 * count / divisor) : std::nullopt;
}

}  // namespace

double RateArrivals::Gap() {
  switch (options_.process) {
    case ArrivalOptions::Process::kConstant: return 1;
    case ArrivalOptions::Process::kPoisson: return -std::log1p(-random_.Uniform());
    case ArrivalOptions::Process::kGamma:
      return std::gamma_distribution<double>(options_.burstiness, 1 / options_.burstiness)(random_);
  }
  return 1;
}

std::optional<double> RateArrivals::Next() {
  // A constant rate begins at once; random gaps begin with a gap.
  if (begun_ || options_.process != ArrivalOptions::Process::kConstant) sum_ += Gap();
  begun_ = true;
  const double slope = (options_.end_rate - options_.rate) / options_.duration;
  std::optional<double> time = TimeOfCount(options_.rate, slope, sum_);
  if (time.has_value() && *time >= options_.duration) time.reset();
  return time;
}

std::optional<double> ListedArrivals::Next() {
  if (next_ == times_.size()) return std::nullopt;
  return times_[next_++];
}

}  // namespace sessa::loadtest
