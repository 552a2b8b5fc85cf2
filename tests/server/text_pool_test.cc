// The bound on long texts that wait, at its edge; what waits when the pool goes is dropped; priorities.
#include "server/core/text_pool.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

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
  std::thread([&forbidden] {  // the filter is this thread's, and of those that it starts
    sock_filter rules[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),  // the system call's number
                           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setpriority, 0, 1),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program = {std::size(rules), rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return;
    forbidden = true;
    const int own = getpriority(PRIO_PROCESS, 0);
    EXPECT_EQ(NiceValues(), std::pair(own, own));
  })
      .join();
  if (!forbidden) GTEST_SKIP() << "this machine lets nobody set a filter";
}

}  // namespace
}  // namespace sessa
