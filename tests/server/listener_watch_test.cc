// Liveness hears of a listener that takes nothing any more, after three failures in a row and no sooner, and of
// one that does so again.
#include "server/core/listener_watch.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace sessa {
namespace {

// A listener that fails so many times in a row, then answers once, and so on; 0 never fails.
class Listener {
 public:
  void Fail(int in_a_row) { in_a_row_ = in_a_row; }
  int num_answers() const { return num_answers_; }
  ListenerWatch::Check check() {
    return [this](absl::Duration timeout) {
      EXPECT_EQ(timeout, absl::Seconds(7));
      if (failed_++ < in_a_row_) return absl::DeadlineExceededError("no answer");
      failed_ = 0;
      ++num_answers_;
      return absl::OkStatus();
    };
  }

 private:
  std::atomic<int> in_a_row_{0}, failed_{0}, num_answers_{0};
};

void WaitFor(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(ListenerWatchTest, ThreeFailuresInARowAreNotLive) {
  Service service{ServiceOptions()};
  Listener rest, grpc;
  const ListenerWatch watch(&service, {{"REST", rest.check()}, {"gRPC", grpc.check()}}, absl::Microseconds(100),
                            absl::Seconds(7));
  for (Listener* listener : {&rest, &grpc}) {
    listener->Fail(ListenerWatch::kMaxFailures - 1);
    for (const int until = listener->num_answers() + 20; listener->num_answers() < until;)
      EXPECT_TRUE(service.Live());
    listener->Fail(1 << 30);
    WaitFor([&] { return !service.Live(); });
    listener->Fail(0);
    WaitFor([&] { return service.Live(); });
  }
}

}  // namespace
}  // namespace sessa
