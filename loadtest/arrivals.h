// When requests are sent in open loop: a plan that is made before anything is sent and never looks at
// answers. The gaps come from a process of rate 1; a rate that may change linearly over the run stretches its
// time: arrival n is at the time t for which the integral of the rate over [0, t] is the sum of the first n
// gaps.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "loadtest/random.h"

namespace sessa::loadtest {

class Arrivals {
 public:
  virtual ~Arrivals() = default;
  // Seconds since the run's start, never falling; none: the plan has ended.
  virtual std::optional<double> Next() = 0;
};

struct ArrivalOptions {
  // Gaps: kConstant all equal; kPoisson exponential; kGamma with shape `burstiness`, so that their
  // coefficient of variation is 1 / sqrt(burstiness): below 1 burstier than Poisson, above it more regular.
  enum class Process { kConstant, kPoisson, kGamma } process = Process::kPoisson;
  double burstiness = 1;
  double rate = 1;      // requests/s at the start
  double end_rate = 1;  // and at `duration`; the same: no ramp
  double duration = 0;  // seconds
  uint64_t seed = 0;
};

// Requires: rates >= 0 and not both 0, burstiness > 0, duration > 0.
class RateArrivals final : public Arrivals {
 public:
  explicit RateArrivals(const ArrivalOptions& options) : options_(options), random_(options.seed, 'A') {}
  std::optional<double> Next() override;

 private:
  double Gap();

  const ArrivalOptions options_;
  Random random_;
  double sum_ = 0;  // of the gaps so far
  bool begun_ = false;
};

// Times that are known: a trace's.
class ListedArrivals final : public Arrivals {
 public:
  explicit ListedArrivals(std::vector<double> times) : times_(std::move(times)) {}
  std::optional<double> Next() override;

 private:
  const std::vector<double> times_;
  size_t next_ = 0;
};

}  // namespace sessa::loadtest
