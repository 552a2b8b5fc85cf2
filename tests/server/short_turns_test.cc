// A thread that works without end gives its core to others, and only while it was asked for; where the system
// forbids timers it works on.
#include "server/core/short_turns.h"

#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <thread>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "server/core/text_pool.h"
#include "tests/server/forbid_system_call.h"

namespace sessa {
namespace {

double CpuSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

long NumPauses() {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

// Works until the thread has left its core `num_pauses` times, or for so long of the core's time.
bool LeavesItsCore(int num_pauses, double seconds) {
  const long pauses = NumPauses() + num_pauses;
  for (const double end = CpuSeconds() + seconds; CpuSeconds() < end;)
    if (NumPauses() >= pauses) return true;
  return false;
}

constexpr double kLong = 60, kShort = 0.05;

TEST(ShortTurnsTest, BetweenBeginAndEnd) {
  std::thread([] {
    ShortTurns turns;
    EXPECT_FALSE(LeavesItsCore(1, kShort));
    turns.Begin();
    EXPECT_TRUE(LeavesItsCore(10, kLong));
    turns.End();
    EXPECT_FALSE(LeavesItsCore(1, kShort));
    turns.Begin();
    EXPECT_TRUE(LeavesItsCore(1, kLong));
  }).join();
}

TEST(ShortTurnsTest, OfItsThreadAlone) {
  std::thread([] {
    ShortTurns turns;
    turns.Begin();
    std::thread([] { EXPECT_FALSE(LeavesItsCore(1, kShort)); }).join();
  }).join();
}

TEST(ShortTurnsTest, WhereTheSignalWasBlocked) {
  std::thread([] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    ShortTurns turns;
    turns.Begin();
    EXPECT_TRUE(LeavesItsCore(1, kLong));
  }).join();
}

TEST(ShortTurnsTest, WorkDoesNotSeeThem) {
  std::thread([] {
    ShortTurns turns;
    turns.Begin();
    errno = 77;
    EXPECT_TRUE(LeavesItsCore(10, kLong));
    EXPECT_EQ(errno, 77);
  }).join();
}

TEST(ShortTurnsTest, TextsAreWorkedOnInThem) {
  for (const size_t num_bytes : {TextPool::kLongBytes, TextPool::kLongBytes + 1}) {
    bool left = false;
    {
      TextPool pool(1, 1 << 20);
      absl::Notification done;
      ASSERT_TRUE(pool.Post(num_bytes, [&] {
        left = LeavesItsCore(2, kLong);
        done.Notify();
      }));
      done.WaitForNotification();
    }
    EXPECT_TRUE(left) << num_bytes;
  }
}

TEST(ShortTurnsTest, WhereASandboxForbidsTimers) {
  bool forbidden = false;
  std::thread([&forbidden] {
    if (!(forbidden = ForbidSystemCall(SYS_timer_create))) return;
    ShortTurns turns;
    turns.Begin();
    EXPECT_FALSE(LeavesItsCore(1, kShort));
    turns.End();
  }).join();
  if (!forbidden) GTEST_SKIP() << "this machine lets nobody set a filter";
}

}  // namespace
}  // namespace sessa
