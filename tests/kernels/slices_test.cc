// A thread has the slices that it asks for, as those that it starts; it keeps how nice it is, and leaves
// other policies and threads alone.
#include "kernels/slices.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <thread>

#include "gtest/gtest.h"

namespace sessa {
namespace {

// Of the calling thread, in nanoseconds: the fourth of the 8-byte words that sched_getattr(2) gives.
uint64_t Slice() {
  uint64_t attributes[6] = {sizeof(attributes)};
  EXPECT_EQ(syscall(SYS_sched_getattr, 0, attributes, sizeof(attributes), 0), 0);
  return attributes[3];
}

TEST(SlicesTest, OfTheCallingThreadAndThoseThatItStarts) {
  const uint64_t before = Slice();
  std::thread([before] {
    const int nice = std::min(19, getpriority(PRIO_PROCESS, 0) + 1);
    setpriority(PRIO_PROCESS, 0, nice);
    AskForSlices(kEngineSlice);
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), nice);
    if (before == 0) GTEST_SKIP() << "this Linux has no slices to ask for";
    EXPECT_EQ(Slice(), 500'000u);
    AskForSlices(kShortestSlice);
    EXPECT_EQ(Slice(), 100'000u);
    std::thread([] { EXPECT_EQ(Slice(), 100'000u); }).join();
  }).join();
  EXPECT_EQ(Slice(), before);
}

TEST(SlicesTest, LongOnesOfAThreadThatIsNicer) {
  const uint64_t before = Slice();
  const int nice = getpriority(PRIO_PROCESS, 0);
  std::thread([before, nice] {
    AskForSlices(kShortestSlice);
    BeNicer(3);
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), std::min(19, nice + 3));
    if (before == 0) GTEST_SKIP() << "this Linux has no slices to ask for";
    EXPECT_EQ(Slice(), 10'000'000u);
  }).join();
  EXPECT_EQ(getpriority(PRIO_PROCESS, 0), nice);
}

TEST(SlicesTest, AnotherPolicyStays) {
  std::thread([] {
    const sched_param none = {};
    ASSERT_EQ(sched_setscheduler(0, SCHED_IDLE, &none), 0);
    AskForSlices(kShortestSlice);
    EXPECT_EQ(sched_getscheduler(0), SCHED_IDLE);
  }).join();
}

}  // namespace
}  // namespace sessa
