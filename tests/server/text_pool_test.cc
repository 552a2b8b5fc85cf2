// The bound on long texts that wait, at its edge; what waits when the pool goes is dropped.
#include "server/core/text_pool.h"

#include <memory>

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

}  // namespace
}  // namespace sessa
