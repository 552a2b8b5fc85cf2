// The queue to the publishing thread: what does not fit is dropped whole, and counted.
#include "server/cache_events/cache_events.h"

#include <atomic>
#include <cstdint>

#include "gtest/gtest.h"

namespace sessa {
namespace {

TEST(CacheEventsTest, DroppedEventsAreCounted) {
  std::atomic<int64_t> num_dropped{0};
  CacheEventsOptions options;
  options.endpoint = "tcp://127.0.0.1:*";
  options.max_queued = 1;
  options.on_dropped = [&num_dropped](int64_t num) { num_dropped += num; };
  const auto events = CacheEvents::Start(options);
  ASSERT_TRUE(events.ok()) << events.status();
  // The thread takes some; however fast it is, others come meanwhile.
  int64_t num_pushed = 0;
  while (num_dropped < 100) (*events)->OnRemoved(static_cast<int32_t>(num_pushed++));
  EXPECT_LT(num_dropped, num_pushed);
}

}  // namespace
}  // namespace sessa
