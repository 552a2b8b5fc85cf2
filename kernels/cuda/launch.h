// What is the same for all launches of the process: switches that rule out causes of a fault or of lost time,
// and what the first refused launch was, which a runtime's error does not say.
#pragma once

#include <string>

namespace sessa::cuda {

// How a multiprocessor's memory is to be divided between shared memory and L1 cache.
enum class Carveout {
  kDriver,  // as the driver thinks
  kLarge,   // all shared, for kernels whose blocks take more than 48 KiB: the driver may see to one block
            // alone
  kAll,     // all shared, for all kernels: a multiprocessor must be empty to divide its memory anew
};

// Set before the first backend is made. Programs for tests and benchmarks alone change them
// (tests/cuda/switches.h).
struct LaunchSwitches {
  bool overlap = true;  // a kernel's blocks may come in while the kernel before is still at work
  bool graphs = true;   // steps of few rows are captured
  Carveout carveout = Carveout::kLarge;
  bool trace = false;  // names each launch on stderr
};
LaunchSwitches& launch_switches();

// While one exists, launches of this thread do not overlap.
class WithoutOverlap {
 public:
  WithoutOverlap();
  ~WithoutOverlap();
  WithoutOverlap(const WithoutOverlap&) = delete;
  WithoutOverlap& operator=(const WithoutOverlap&) = delete;
};
bool LaunchesOverlap();  // of this thread

// Of this thread: keeps the first that is noted; Take returns it and forgets it, empty when there is none.
void NoteLaunchFailure(std::string failure);
std::string TakeLaunchFailure();

}  // namespace sessa::cuda
