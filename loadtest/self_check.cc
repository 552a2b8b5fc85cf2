// See self_check.h.
#include "loadtest/self_check.h"

#include <algorithm>
#include <ctime>

#include "absl/strings/str_format.h"

namespace sessa::loadtest {
namespace {

constexpr double kLoopTick = 0.005;

double ProcessCpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double Percentile99(std::vector<float>* values) {
  if (values->empty()) return 0;
  const auto rank = values->begin() + static_cast<std::ptrdiff_t>((values->size() - 1) * 99 / 100);
  std::nth_element(values->begin(), rank, values->end());
  return *rank;
}

double Max(const std::vector<float>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

}  // namespace

std::string JudgeHealth(const ClientHealth& health, const HealthLimits& limits, int num_threads) {
  if (health.p99_send_lag > limits.send_lag) {
    return absl::StrFormat(
        "the client sent too late: 1 %% of the requests by more than %.1f ms (limit %.1f ms, worst %.1f ms)",
        health.p99_send_lag * 1e3, limits.send_lag * 1e3, health.max_send_lag * 1e3);
  }
  if (health.p99_loop_lag > limits.loop_lag) {
    return absl::StrFormat(
        "the client read too late: 1 %% of its timers fired more than %.1f ms late (limit %.1f ms, worst "
        "%.1f ms)",
        health.p99_loop_lag * 1e3, limits.loop_lag * 1e3, health.max_loop_lag * 1e3);
  }
  if (health.cpu_share > limits.cpu_share * num_threads) {
    return absl::StrFormat("the client used %.0f %% of a CPU core, %.0f %% is all that is sure not to lag",
                           health.cpu_share * 100, limits.cpu_share * num_threads * 100);
  }
  return "";
}

void HealthMonitor::Start() {
  started_at_ = clock_.Now();
  cpu_at_start_ = ProcessCpuSeconds();
  Arm();
}

void HealthMonitor::Arm() {
  const double due = clock_.Now() + kLoopTick;
  timer_.expires_at(clock_.At(due));
  timer_.async_wait([this, due](boost::system::error_code error) {
    if (error) return;
    loop_lags_.push_back(static_cast<float>(clock_.Now() - due));
    Arm();
  });
}

ClientHealth HealthMonitor::Summarise() {
  ClientHealth health;
  health.max_send_lag = max_send_lag_;
  health.p99_send_lag = Percentile99(&send_lags_);
  health.max_loop_lag = Max(loop_lags_);
  health.p99_loop_lag = Percentile99(&loop_lags_);
  const double wall = clock_.Now() - started_at_;
  if (wall > 0) health.cpu_share = (ProcessCpuSeconds() - cpu_at_start_) / wall;
  return health;
}

}  // namespace sessa::loadtest
