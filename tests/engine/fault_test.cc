// The engine above devices that fail: every request ends once, with a status that says so, and no page or
// slot is left.
#include <atomic>
#include <vector>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/monotonic.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/fault_injection.h"

namespace sessa {
namespace {

class FaultTest : public EngineFixture {
 protected:
  FaultTest() { Faults::Get().Clear(); }
  ~FaultTest() override { Faults::Get().Clear(); }

  static EngineOptions Options(int num_ranks) {
    EngineOptions o = SmallOptions();
    o.tensor_parallel_size = num_ranks;
    o.max_num_seqs = 4;
    return o;
  }
  // Its warm-up has ended.
  std::unique_ptr<Engine> MakeUsed(const EngineOptions& options) {
    auto engine = Make(options);
    EXPECT_TRUE(Submit(engine.get(), MakeRequest(RandomPrompt(1), 1))->WaitForEnd().end.status.ok());
    return engine;
  }
  static void ExpectNothingLeft(const Engine& engine) {
    const EngineStats stats = engine.Stats();
    EXPECT_EQ(stats.num_running, 0);
    EXPECT_EQ(stats.num_waiting, 0);
    EXPECT_EQ(stats.waiting_tokens, 0);
    EXPECT_EQ(stats.num_used_pages, 0);
  }
};

// One after the other, each allocation of a start fails.
TEST_F(FaultTest, EveryAllocationFailure) {
  for (int ranks : {1, 2}) {
    Faults::Get().Clear();
    Make(Options(ranks));
    const int64_t count = Faults::Get().num_allocations();
    ASSERT_GT(count, 40);
    for (int64_t i = 0; i < count; ++i) {
      Faults::Get().FailAllocation(i);
      const absl::Status status = Engine::Create(Options(ranks), config_, *weights_).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << "allocation " << i << ": " << status;
    }
    Faults::Get().FailAllocation(-1);
    EXPECT_TRUE(
        Submit(Make(Options(ranks)).get(), MakeRequest(RandomPrompt(5), 3))->WaitForEnd().end.status.ok());
  }
}

// A device of one rank fails in one step, with requests of all kinds on their way: running and waiting, of
// one choice and of several, just cancelled, just arrived.
TEST_F(FaultTest, ADeviceErrorInAStep) {
  for (int ranks : {1, 2, 4}) {
    for (int bad_rank : {0, ranks - 1}) {
      for (int bad_step : {1, 2, 3, 10}) {
        Faults::Get().Clear();
        auto engine = Make(Options(ranks));
        std::atomic<int> step{0};
        Faults::Get().SetAtSync([&](int rank) {
          return rank == bad_rank && ++step == bad_step ? absl::InternalError("injected") : absl::OkStatus();
        });
        std::vector<std::shared_ptr<CollectingSink>> sinks;
        for (int i = 0; i < 8; ++i) {
          auto sink = std::make_shared<CollectingSink>(1 + i % 3);
          Request request = MakeRequest(RandomPrompt(20 * (1 + i % 4), i), 60, 1, i, 1 + i % 3);
          request.sink = sink;
          const auto id = engine->Submit(request);
          if (!id.ok()) {
            EXPECT_EQ(id.status().code(), absl::StatusCode::kUnavailable);
            continue;
          }
          sinks.push_back(sink);
          if (i == 5) engine->Cancel(*id);
        }
        for (const auto& sink : sinks) {  // CollectingSink fails on a second end
          const absl::Status status = sink->WaitForEnd().end.status;
          if (absl::IsCancelled(status)) continue;
          EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
          EXPECT_NE(status.message().find(absl::StrCat("rank ", bad_rank)), std::string::npos) << status;
        }
        EXPECT_EQ(engine->Stats().health.code(), absl::StatusCode::kUnavailable);
        EXPECT_EQ(SubmitError(engine.get(), MakeRequest(RandomPrompt(5), 1)).code(),
                  absl::StatusCode::kUnavailable);
        ExpectNothingLeft(*engine);
        EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
      }
    }
  }
}

// Logits that are not numbers end the request they belong to and no other.
TEST_F(FaultTest, LogitsThatAreNotNumbers) {
  auto engine = MakeUsed(Options(2));
  std::atomic<int> step{0};
  Faults::Get().SetAtSample([&] { return ++step == 5; });
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (int i = 0; i < 6; ++i)
    sinks.push_back(Submit(engine.get(), MakeRequest(RandomPrompt(20, i), 20, 1, i, 1 + i % 2)));
  int num_failed = 0;
  for (const auto& sink : sinks) {
    const CollectingSink::Result& result = sink->WaitForEnd();
    if (result.end.status.ok()) {
      EXPECT_EQ(result.tokens[0].size(), 20u);
      continue;
    }
    ++num_failed;
    EXPECT_EQ(result.end.status.code(), absl::StatusCode::kInternal) << result.end.status;
  }
  EXPECT_EQ(num_failed, 1);
  EXPECT_TRUE(engine->Stats().health.ok());
  ExpectNothingLeft(*engine);
}

// A rank that hangs in a step: the engine still answers, what is asked for meanwhile waits, and all of it
// goes on when the rank does.
TEST_F(FaultTest, ARankThatHangs) {
  for (int bad_rank : {0, 1}) {
    Faults::Get().Clear();
    auto engine = MakeUsed(Options(2));
    Mutex mutex;
    std::condition_variable_any news;
    bool hangs = false, released = false;
    std::atomic<int> step{0};
    Faults::Get().SetAtSync([&](int rank) {
      if (rank != bad_rank || ++step != 3) return absl::OkStatus();
      MutexLock lock(&mutex);
      hangs = true;
      news.notify_all();
      while (!released) news.wait(mutex);
      return absl::OkStatus();
    });
    auto running = Submit(engine.get(), MakeRequest(RandomPrompt(20), 10));
    {
      MutexLock lock(&mutex);
      while (!hangs) news.wait(mutex);
    }
    const absl::Time last_beat = engine->Stats().heartbeat;
    RequestId id = 0;
    auto later = Submit(engine.get(), MakeRequest(RandomPrompt(20, 2), 10));
    auto cancelled = Submit(engine.get(), MakeRequest(RandomPrompt(20, 3), 10), &id);
    engine->Cancel(id);
    EXPECT_EQ(engine->Stats().heartbeat, last_beat);  // what liveness looks at
    EXPECT_EQ(engine->Stats().num_waiting, 2);
    EXPECT_FALSE(running->ended());
    {
      MutexLock lock(&mutex);
      released = true;
      news.notify_all();
    }
    EXPECT_TRUE(running->WaitForEnd().end.status.ok());
    EXPECT_TRUE(later->WaitForEnd().end.status.ok());
    EXPECT_EQ(cancelled->WaitForEnd().end.status.code(), absl::StatusCode::kCancelled);
    ExpectNothingLeft(*engine);
  }
}

// After a first step that is slow the others of the warm-up run beside what comes, until a request does.
TEST_F(FaultTest, WarmsUpUntilTheFirstRequest) {
  Mutex mutex;
  std::condition_variable_any news;
  int step = 0;
  bool released = false;
  Faults::Get().SetAtSync([&](int) {
    MutexLock lock(&mutex);
    if (++step == 1) absl::SleepFor(absl::Milliseconds(60));
    news.notify_all();
    while (step == 3 && !released) news.wait(mutex);
    return absl::OkStatus();
  });
  auto engine = Make(Options(1));
  {
    MutexLock lock(&mutex);
    while (step < 3) news.wait(mutex);
  }
  auto first = Submit(engine.get(), MakeRequest(RandomPrompt(5), 4));
  {
    MutexLock lock(&mutex);
    released = true;
    news.notify_all();
  }
  EXPECT_TRUE(first->WaitForEnd().end.status.ok());
  ExpectNothingLeft(*engine);
  engine.reset();
  EXPECT_EQ(step, 3 + 4);
}

TEST_F(FaultTest, ADeviceErrorWhileWarmingUp) {
  std::atomic<int> step{0};
  Faults::Get().SetAtSync([&](int) {
    if (++step == 1) absl::SleepFor(absl::Milliseconds(60));
    return step == 3 ? absl::InternalError("injected") : absl::OkStatus();
  });
  auto engine = Make(Options(1));
  while (engine->Stats().health.ok()) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(SubmitError(engine.get(), MakeRequest(RandomPrompt(5), 1)).code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace sessa
