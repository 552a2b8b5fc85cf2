// How far the client itself was behind, and whether a run's figures can be trusted in spite of it.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "loadtest/clock.h"
#include "loadtest/record.h"

namespace sessa::loadtest {

struct HealthLimits {
  double send_lag = 0.010;  // seconds, of the 99th percentile of requests
  double loop_lag = 0.010;  // seconds, of the 99th percentile of a timer's firings
  double cpu_share = 0.9;   // of each of the client's threads
};

// A sentence for what is beyond its limit, with the value and the limit; empty: nothing is.
std::string JudgeHealth(const ClientHealth& health, const HealthLimits& limits, int num_threads);

// Lets a timer fire every 5 ms on the loop, and notes by how much it is late: by as much could an answer's
// time be wrong. Lives and is used on the loop's thread.
class HealthMonitor {
 public:
  HealthMonitor(boost::asio::io_context* io, const Clock& clock) : clock_(clock), timer_(*io) {}
  void Start();
  void AddSendLag(double seconds) {
    send_lags_.push_back(static_cast<float>(seconds));
    max_send_lag_ = std::max(max_send_lag_, seconds);
  }
  double max_send_lag() const { return max_send_lag_; }
  // Since Start; without a judgement.
  ClientHealth Summarise();

 private:
  void Arm();

  const Clock clock_;
  boost::asio::steady_timer timer_;
  std::vector<float> send_lags_, loop_lags_;
  double started_at_ = 0, cpu_at_start_ = 0, max_send_lag_ = 0;
};

}  // namespace sessa::loadtest
