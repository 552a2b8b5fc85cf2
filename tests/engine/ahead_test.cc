// Steps that are planned and started before the tokens of the one before them are known, by the real engine,
// models and kernels of the CPU behind a device that says it works beside its host: the same tokens as
// without, whoever ends, is cancelled, preempted or guessed ahead meanwhile.
#include <atomic>
#include <string>
#include <vector>

#include "tests/engine/engine_fixture.h"
#include "tests/engine/fault_injection.h"

namespace sessa {
namespace {

class AheadTest : public EngineFixture, public testing::WithParamInterface<int> {
 protected:
  AheadTest() {
    Faults::Get().Clear();
    config_ = SmallConfigs()[GetParam()].second;
    weights_ = RandomModel(config_, 3);
  }
  ~AheadTest() override { Faults::Get().Clear(); }

  // Any step is short, so that how fast the machine is does not matter.
  static EngineOptions Options() {
    EngineOptions o = SmallOptions();
    o.target_step_time = absl::InfiniteDuration();
    return o;
  }

  // Answers of all lengths, most of which end by eos or a stop token, at a step that was not expected to.
  static std::vector<Request> Requests() {
    std::vector<Request> requests;
    for (int i = 0; i < 24; ++i) {
      Request& r = requests.emplace_back(MakeRequest(RandomPrompt(3 + 11 * (i % 7), i % 5), 1 + 13 * (i % 6),
                                                     i % 4 == 0 ? 0 : 1, i, 1 + i % 2));
      r.sampling.num_logprobs = -1;
      r.sampling.ignore_eos = i % 3 == 0;
      if (i % 5 == 1) r.sampling.stop_token_ids = {3, 4};
      if (i % 8 == 2) r.sampling.logit_bias = {{5, 1.5f}};
      if (i % 8 == 5) r.sampling.min_tokens = 9;
      if (i % 12 == 11) r.sampling.repetition_penalty = 1.2f;  // is not planned ahead
      if (i % 12 == 10) r.sampling.num_logprobs = 2;           // neither
    }
    return requests;
  }

  std::vector<CollectingSink::Result> RunAll(const EngineOptions& options, bool asynchronous) {
    Faults::Get().SetAsynchronous(asynchronous);
    const auto engine = Make(options);
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (const Request& r : Requests()) sinks.push_back(Submit(engine.get(), r));
    std::vector<CollectingSink::Result> results;
    for (const auto& sink : sinks) results.push_back(sink->WaitForEnd());
    EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
    EXPECT_EQ(engine->Stats().num_used_pages + engine->Stats().num_used_slots, 0);
    return results;
  }

  static void ExpectSame(const std::vector<CollectingSink::Result>& a,
                         const std::vector<CollectingSink::Result>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_TRUE(a[i].end.status.ok()) << i << ": " << a[i].end.status;
      EXPECT_EQ(a[i].tokens, b[i].tokens) << i;
      EXPECT_EQ(a[i].finish, b[i].finish) << i;
      EXPECT_EQ(a[i].end.num_generated_tokens, b[i].end.num_generated_tokens) << i;
      for (size_t c = 0; c < a[i].logprobs.size(); ++c) {
        for (size_t k = 0; k < a[i].logprobs[c].size(); ++k)
          EXPECT_EQ(a[i].logprobs[c][k].logprob, b[i].logprobs[c][k].logprob);
      }
    }
  }
};

TEST_P(AheadTest, SameTokens) {
  EngineOptions options = Options();
  options.num_speculative_tokens = 0;
  const auto expected = RunAll(options, /*asynchronous=*/false);
  EXPECT_EQ(Faults::Get().num_steps_ahead(), 0);
  options.max_num_seqs = 5;  // others wait, and find the prefixes of those before them
  ExpectSame(RunAll(options, /*asynchronous=*/true), expected);
  EXPECT_GT(Faults::Get().num_steps_ahead(), 20);
  options.num_speculative_tokens = -1;
  ExpectSame(RunAll(options, /*asynchronous=*/true), expected);
  options.enable_prefix_caching = false;
  options.tensor_parallel_size = 2;  // one step at a time
  const int before = Faults::Get().num_steps_ahead();
  ExpectSame(RunAll(options, /*asynchronous=*/true), expected);
  EXPECT_EQ(Faults::Get().num_steps_ahead(), before);
}

TEST_P(AheadTest, SameTokensWhenPagesAreShort) {
  EngineOptions options = Options();
  const auto expected = RunAll(options, /*asynchronous=*/false);
  if (config_.mamba() != nullptr) {
    options.max_num_seqs = 2, options.state_cache_bytes /= 64;
  } else {
    options.state_cache_bytes = 25 * options.state_cache_bytes / (2 * Make(options)->Stats().num_pages);
  }
  options.num_speculative_tokens = 0;
  ExpectSame(RunAll(options, /*asynchronous=*/true), expected);
  EXPECT_GT(Faults::Get().num_steps_ahead(), 20);
}

// From the engine's own thread, while a step is under way that was planned for the request.
TEST_P(AheadTest, CancelsAndStops) {
  class EndingSink final : public CollectingSink {
   public:
    explicit EndingSink(int n) : CollectingSink(n) {}
    bool OnToken(TokenUpdate update) override {
      const int choice = update.choice;
      CollectingSink::OnToken(std::move(update));
      if (++num_tokens_ == 5) engine_->StopChoice(id_, choice);
      if (num_tokens_ == 9) engine_->Cancel(id_);
      return num_tokens_ < 12;
    }
    Engine* engine_ = nullptr;
    std::atomic<RequestId> id_ = 0;

   private:
    int num_tokens_ = 0;
  };
  const auto expected = RunAll(Options(), /*asynchronous=*/false);
  Faults::Get().SetAsynchronous(true);
  EngineOptions options = Options();
  options.max_num_seqs = 6;
  const auto engine = Make(options);
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  std::vector<std::shared_ptr<EndingSink>> ended;
  for (const Request& r : Requests()) {
    sinks.push_back(Submit(engine.get(), r));
    Request other = MakeRequest(RandomPrompt(20, static_cast<int>(ended.size())), 200, 1, ended.size(), 2);
    other.sampling.num_logprobs = -1;
    auto sink = std::make_shared<EndingSink>(2);
    sink->engine_ = engine.get();
    other.sink = sink;
    sink->id_ = *engine->Submit(other);
    ended.push_back(sink);
  }
  std::vector<CollectingSink::Result> results;
  for (const auto& sink : sinks) results.push_back(sink->WaitForEnd());
  for (const auto& sink : ended) sink->WaitForEnd();
  ExpectSame(results, expected);
  EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
  EXPECT_EQ(engine->Stats().num_used_pages + engine->Stats().num_used_slots, 0);
}

// The step that fails has another one behind it.
TEST_P(AheadTest, ADeviceErrorBehindWhichAStepIsUnderWay) {
  Faults::Get().SetAsynchronous(true);
  const auto engine = Make(Options());
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  Faults::Get().SetAtSync([](int) {
    return Faults::Get().num_steps_ahead() > 7 ? absl::InternalError("injected") : absl::OkStatus();
  });
  Request request = MakeRequest(RandomPrompt(20), 200);
  request.sampling.num_logprobs = -1;
  for (int i = 0; i < 3; ++i) {
    request.sink = std::make_shared<CollectingSink>();
    if (engine->Submit(request).ok()) sinks.push_back(std::static_pointer_cast<CollectingSink>(request.sink));
  }
  ASSERT_FALSE(sinks.empty());
  for (const auto& sink : sinks)
    EXPECT_EQ(sink->WaitForEnd().end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine->Stats().health.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine->Stats().num_used_pages + engine->Stats().num_used_slots, 0);
}

INSTANTIATE_TEST_SUITE_P(Families, AheadTest, testing::Range(0, 5),
                         [](const auto& info) { return SmallConfigs()[info.param].first; });

}  // namespace
}  // namespace sessa
