#include "kernels/slices.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace sessa {
namespace {

// What sched_getattr(2) and sched_setattr(2) take, neither of which Debian 12's C library has.
struct Attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;  // ns; runtime: of SCHED_OTHER, the slice
};

constexpr std::chrono::milliseconds kNicerSlice{10};

}  // namespace

void AskForSlices(std::chrono::microseconds length) {
  Attributes a = {};
  if (syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0) != 0 || a.policy != SCHED_OTHER) return;
  a.runtime = std::chrono::nanoseconds(length).count();
  syscall(SYS_sched_setattr, 0, &a, 0);
}

void BeNicer(int by) {
  AskForSlices(kNicerSlice);
  setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + by);
}

}  // namespace sessa
