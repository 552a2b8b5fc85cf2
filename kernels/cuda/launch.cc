#include "kernels/cuda/launch.h"

#include <utility>

namespace sessa::cuda {
namespace {

thread_local int num_without_overlap = 0;
thread_local std::string first_failure;

}  // namespace

LaunchSwitches& launch_switches() {
  static LaunchSwitches switches;
  return switches;
}

WithoutOverlap::WithoutOverlap() { ++num_without_overlap; }
WithoutOverlap::~WithoutOverlap() { --num_without_overlap; }
bool LaunchesOverlap() { return launch_switches().overlap && num_without_overlap == 0; }

void NoteLaunchFailure(std::string failure) {
  if (first_failure.empty()) first_failure = std::move(failure);
}
std::string TakeLaunchFailure() { return std::exchange(first_failure, {}); }

}  // namespace sessa::cuda
