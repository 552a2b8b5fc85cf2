// The bound on long texts that wait, at its edge; what waits when the pool goes is dropped; priorities.
#include "server/core/text_pool.h"

#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/server/forbid_system_call.h"

namespace sessa {
namespace {

TEST(TextPoolTest, WaitingBytesAreBounded) {
  absl::Notification begun, go_on, done;
  const auto held = std::make_shared<int>();
  {
    TextPool pool(1, 100);
    ASSERT_TRUE(
        pool.Post(1000, [&] { begun.Notify(), go_on.WaitForNotification(); }));  // an empty queue takes any
    begun.WaitForNotification();
    EXPECT_TRUE(pool.Post(60, [held] {}));
    EXPECT_FALSE(pool.Post(41, [held] {}));
    EXPECT_TRUE(pool.Post(40, [&done] { done.Notify(); }));
    EXPECT_FALSE(pool.Post(1, [held] {}));
    EXPECT_EQ(held.use_count(), 2);
    go_on.Notify();
    done.WaitForNotification();
    EXPECT_TRUE(pool.Post(100, [held] {}));
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(TextPoolTest, ShortTextsDoNotWaitForLongOnes) {
  absl::Notification begun, go_on, done;
  TextPool pool(1, 1 << 20);
  ASSERT_TRUE(pool.Post(TextPool::kLongBytes + 1, [&] { begun.Notify(), go_on.WaitForNotification(); }));
  begun.WaitForNotification();
  ASSERT_TRUE(pool.Post(TextPool::kLongBytes, [&done] { done.Notify(); }));
  done.WaitForNotification();
  go_on.Notify();
}

// The nice values of a new pool's threads, for short texts and for long ones.
std::pair<int, int> NiceValues() {
  TextPool pool(1, 1 << 20);
  const auto of = [&pool](size_t num_bytes) {
    int value = -100;
    absl::Notification done;
    EXPECT_TRUE(pool.Post(num_bytes, [&] {
      value = getpriority(PRIO_PROCESS, 0);
      done.Notify();
    }));
    done.WaitForNotification();
    return value;
  };
  return {of(TextPool::kLongBytes), of(TextPool::kLongBytes + 1)};
}

TEST(TextPoolTest, LongTextsYieldToShortOnesAndBothToTheEngine) {
  const int own = getpriority(PRIO_PROCESS, 0);
  EXPECT_EQ(NiceValues(), std::pair(std::min(own + 5, 19), std::min(own + TextPool::kLongNice, 19)));
  EXPECT_EQ(getpriority(PRIO_PROCESS, 0), own);
}

TEST(TextPoolTest, TextsAreServedWhereASandboxForbidsPriorities) {
  bool forbidden = false;
  std::thread([&forbidden] {
    if (!(forbidden = ForbidSystemCall(SYS_setpriority))) return;
    const int own = getpriority(PRIO_PROCESS, 0);
    EXPECT_EQ(NiceValues(), std::pair(own, own));
  }).join();
  if (!forbidden) GTEST_SKIP() << "this machine lets nobody set a filter";
}

}  // namespace
}  // namespace sessa
