#include "engine/engine.h"

#include <algorithm>
#include <thread>

#include "absl/time/clock.h"
#include "engine/engine_options.h"
#include "engine/monotonic.h"
#include "tests/engine/engine_fixture.h"
#include "tests/reference/reference_model.h"

namespace sessa {
namespace {

using EngineTest = EngineFixture;

TEST_F(EngineTest, GreedyTokensAreTheOracles) {
  auto engine = Make(SmallOptions());
  const auto result = Submit(engine.get(), MakeRequest(RandomPrompt(37), 12, 0))->WaitForEnd();
  ASSERT_TRUE(result.end.status.ok());
  ReferenceModel oracle(config_, *weights_);
  auto tokens = RandomPrompt(37);
  for (int32_t token : result.tokens[0]) {
    const auto output = oracle.Forward(tokens);
    ASSERT_TRUE(output.ok());
    const double* logits = output->logits.data() + (tokens.size() - 1) * config_.vocab_size;
    ASSERT_EQ(std::max_element(logits, logits + config_.vocab_size) - logits, token);
    tokens.push_back(token);
  }
  EXPECT_EQ(result.finish[0], FinishReason::kLength);
  EXPECT_EQ(result.end.num_generated_tokens, 12);
  EXPECT_LE(result.end.arrival, result.end.scheduled);
  EXPECT_LE(result.end.scheduled, result.end.first_token);
  EXPECT_LE(result.end.first_token, result.end.finished);
}

// Who asks for the best token alone gets it from the device, others from the logits: the same tokens, also
// side by side.
TEST_F(EngineTest, GreedyWithAndWithoutLogitsIsTheSame) {
  auto engine = Make(SmallOptions());
  std::vector<std::shared_ptr<CollectingSink>> with, without;
  for (int i = 0; i < 4; ++i) {
    Request request = MakeRequest(RandomPrompt(20 + i, i), 15, 0);
    request.sampling.min_tokens = 5;  // until then eos is masked, which takes the logits
    request.sampling.ignore_eos = i % 2 == 0;
    with.push_back(Submit(engine.get(), request));
    request.sampling.num_logprobs = -1;
    without.push_back(Submit(engine.get(), request));
  }
  for (int i = 0; i < 4; ++i) {
    const auto tokens = with[i]->WaitForEnd().tokens[0];
    EXPECT_GE(tokens.size(), 5u);
    EXPECT_EQ(without[i]->WaitForEnd().tokens[0], tokens);
  }
}

TEST_F(EngineTest, EosStopIdsAndMinTokens) {
  auto engine = Make(SmallOptions());
  Request request = MakeRequest(RandomPrompt(10), 20, 0);
  request.sampling.ignore_eos = false;
  request.sampling.allowed_token_ids = {7, 39};
  request.sampling.logit_bias = {{39, 1000.0f}};
  using Tokens = std::vector<int32_t>;
  auto result = Submit(engine.get(), request)->WaitForEnd();
  EXPECT_EQ(result.tokens[0], Tokens{39});
  EXPECT_EQ(result.finish[0], FinishReason::kStop);
  request.sampling.min_tokens = 3;
  EXPECT_EQ(Submit(engine.get(), request)->WaitForEnd().tokens[0], (Tokens{7, 7, 7, 39}));
  request.sampling.ignore_eos = true;
  result = Submit(engine.get(), request)->WaitForEnd();
  EXPECT_EQ(result.tokens[0], Tokens(20, 39));
  EXPECT_EQ(result.finish[0], FinishReason::kLength);
  request.sampling.stop_token_ids = {39};
  result = Submit(engine.get(), request)->WaitForEnd();
  EXPECT_EQ(result.tokens[0], (Tokens{7, 7, 7, 39}));
  EXPECT_EQ(result.finish[0], FinishReason::kStop);
}

TEST_F(EngineTest, StopsAtTheContextsEdge) {
  auto engine = Make(SmallOptions());
  const auto result = Submit(engine.get(), MakeRequest(RandomPrompt(505), 100))->WaitForEnd();
  EXPECT_EQ(result.tokens[0].size(), 7u);
  EXPECT_EQ(result.finish[0], FinishReason::kLength);
  EXPECT_EQ(SubmitError(engine.get(), MakeRequest(RandomPrompt(512), 1)).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Submit(engine.get(), MakeRequest(RandomPrompt(511), 1))->WaitForEnd().tokens[0].size(), 1u);
}

TEST_F(EngineTest, CancelAndStopChoiceFreeThePages) {
  auto engine = Make(SmallOptions());
  RequestId cancelled = 0, stopped = 0;
  auto a = Submit(engine.get(), MakeRequest(RandomPrompt(30), 480), &cancelled);
  auto b = Submit(engine.get(), MakeRequest(RandomPrompt(30, 2), 480, 1, 5, 2), &stopped);
  a->WaitForTokens(1);
  b->WaitForTokens(2);
  engine->Cancel(cancelled);
  engine->Cancel(cancelled);
  engine->Cancel(12345);
  EXPECT_EQ(a->WaitForEnd().end.status.code(), absl::StatusCode::kCancelled);
  engine->StopChoice(stopped, 0);
  engine->StopChoice(stopped, 1);
  engine->StopChoice(stopped, 1);
  EXPECT_TRUE(b->WaitForEnd().end.status.ok());
  EXPECT_EQ(engine->Stats().num_used_pages, 0);
  EXPECT_EQ(engine->Stats().num_running, 0);
}

TEST_F(EngineTest, DeadlineAndSlowReader) {
  auto engine = Make(SmallOptions());
  Request late = MakeRequest(RandomPrompt(30), 480);
  late.deadline = MonotonicNow() - absl::Seconds(1);
  EXPECT_EQ(Submit(engine.get(), late)->WaitForEnd().end.status.code(), absl::StatusCode::kDeadlineExceeded);
  Request slow = MakeRequest(RandomPrompt(30), 480);
  auto sink = std::make_shared<CollectingSink>(1, 3);
  slow.sink = sink;
  ASSERT_TRUE(engine->Submit(slow).ok());
  const auto& result = sink->WaitForEnd();
  EXPECT_EQ(result.end.status.code(), absl::StatusCode::kCancelled);
  EXPECT_LT(result.num_tokens, 480);
}

TEST_F(EngineTest, QueueLimits) {
  EngineOptions o = SmallOptions();
  o.max_num_seqs = 1;
  o.max_queued_requests = 2;
  o.max_queued_tokens = 50;
  auto engine = Make(o);
  RequestId id = 0;
  auto running = Submit(engine.get(), MakeRequest(RandomPrompt(30), 480), &id);
  running->WaitForTokens(1);
  auto first = Submit(engine.get(), MakeRequest(RandomPrompt(30), 1));
  EXPECT_EQ(SubmitError(engine.get(), MakeRequest(RandomPrompt(21), 1)).code(),
            absl::StatusCode::kResourceExhausted);
  auto second = Submit(engine.get(), MakeRequest(RandomPrompt(20), 1));
  EXPECT_EQ(SubmitError(engine.get(), MakeRequest(RandomPrompt(1), 1)).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine->Stats().num_waiting, 2);
  EXPECT_EQ(engine->Stats().waiting_tokens, 50);
  engine->Cancel(id);
  EXPECT_TRUE(first->WaitForEnd().end.status.ok());
  EXPECT_TRUE(second->WaitForEnd().end.status.ok());
  EXPECT_EQ(engine->Stats().num_waiting, 0);
}

TEST_F(EngineTest, DrainLetsFinishThenEndsTheRest) {
  auto engine = Make(SmallOptions());
  auto quick = Submit(engine.get(), MakeRequest(RandomPrompt(30), 5));
  engine->Drain(absl::InfiniteFuture());
  EXPECT_TRUE(quick->ended());
  EXPECT_TRUE(engine->Stats().draining);
  EXPECT_EQ(SubmitError(engine.get(), MakeRequest(RandomPrompt(3), 1)).code(),
            absl::StatusCode::kUnavailable);

  engine = Make(SmallOptions());
  auto slow = Submit(engine.get(), MakeRequest(RandomPrompt(30), 480));
  auto fast = Submit(engine.get(), MakeRequest(RandomPrompt(30), 480, 1, 6, 8));
  std::thread first([&] { engine->Drain(MonotonicNow() + absl::Hours(1)); });
  engine->Drain(MonotonicNow());  // hastens the first
  first.join();
  for (const auto& sink : {slow, fast}) {
    ASSERT_TRUE(sink->ended());
    EXPECT_EQ(sink->WaitForEnd().end.status.code(), absl::StatusCode::kUnavailable);
  }
}

TEST_F(EngineTest, DestructorEndsEveryRequest) {
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  auto engine = Make(SmallOptions());
  for (int i = 0; i < 20; ++i) sinks.push_back(Submit(engine.get(), MakeRequest(RandomPrompt(30, i), 480)));
  engine.reset();
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->ended());
    EXPECT_EQ(sink->WaitForEnd().end.status.code(), absl::StatusCode::kCancelled);
  }
}

TEST_F(EngineTest, ManyThreads) {
  EngineOptions o = SmallOptions();
  o.tensor_parallel_size = 2;
  auto engine = Make(o);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&engine, t] {
      for (int i = 0; i < 12; ++i) {
        RequestId id = 0;
        auto sink = Submit(engine.get(), MakeRequest(RandomPrompt(10 + i, t), 10, 1, i, 1 + i % 2), &id);
        if (i % 3 == 1) engine->Cancel(id);
        if (i % 3 == 2) engine->StopChoice(id, 0);
        engine->Stats();
        sink->WaitForEnd();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(engine->Stats().num_used_pages, 0);
}

TEST_F(EngineTest, StepsAreObserved) {
  int64_t tokens = 0;
  auto engine = Engine::Create(
      SmallOptions(), config_, *weights_,
      [](void* sum, const StepObservation& step) {
        *static_cast<int64_t*>(sum) += step.num_tokens;
        EXPECT_GT(step.duration, absl::ZeroDuration());
        EXPECT_GT(step.predicted, absl::ZeroDuration());
      },
      &tokens);
  ASSERT_TRUE(engine.ok());
  Submit(engine->get(), MakeRequest(RandomPrompt(30), 5))->WaitForEnd();
  engine->reset();
  EXPECT_EQ(tokens, 34);
}

// Who looks while the first step after an idle time runs must not take the engine for stuck.
TEST_F(EngineTest, TheBeatIsDueFromTheFirstRequestOn) {
  struct Seen {
    std::unique_ptr<Engine> engine;
    absl::Time heartbeat = absl::InfinitePast();  // during the first step
  } seen;
  auto engine = Engine::Create(
      SmallOptions(), config_, *weights_,
      [](void* context, const StepObservation&) {
        auto* s = static_cast<Seen*>(context);
        if (s->heartbeat == absl::InfinitePast()) s->heartbeat = s->engine->Stats().heartbeat;
      },
      &seen);
  ASSERT_TRUE(engine.ok());
  seen.engine = *std::move(engine);
  const absl::Time submitted = MonotonicNow();
  Submit(seen.engine.get(), MakeRequest(RandomPrompt(30), 2))->WaitForEnd();
  EXPECT_GE(seen.heartbeat, submitted);
}

// A request that comes while a step runs has arrived then, not when the engine looks at it: what it waited is
// part of its time to the first token.
TEST_F(EngineTest, ARequestArrivesWhenItIsSubmitted) {
  struct Seen {
    std::unique_ptr<Engine> engine;
    std::shared_ptr<CollectingSink> second;
    absl::Time submitted;
  } seen;
  auto engine = Engine::Create(
      SmallOptions(), config_, *weights_,
      [](void* context, const StepObservation&) {  // on the engine's thread, which looks for requests later
        auto* s = static_cast<Seen*>(context);
        if (s->second != nullptr) return;
        s->second = Submit(s->engine.get(), MakeRequest(RandomPrompt(3), 1));
        s->submitted = MonotonicNow();
        absl::SleepFor(absl::Milliseconds(1));
      },
      &seen);
  ASSERT_TRUE(engine.ok());
  seen.engine = *std::move(engine);
  Submit(seen.engine.get(), MakeRequest(RandomPrompt(30), 2))->WaitForEnd();
  const RequestEnd end = seen.second->WaitForEnd().end;
  EXPECT_LE(end.arrival, seen.submitted);
  EXPECT_GT(end.scheduled, seen.submitted);
}

TEST_F(EngineTest, OneSequenceOfFullLengthOnAnyRanks) {
  for (int ranks : {1, 2, 4, 8}) {
    EngineOptions o = SmallOptions();
    o.tensor_parallel_size = ranks;
    o.enable_prefix_caching = false;
    o.max_num_seqs = 1;
    o.max_model_len = 82;  // 81 cached tokens: a tile and two pages
    auto engine = Make(o);
    EXPECT_LE(engine->Stats().num_pages, 8 * ranks);  // not all of state_cache_bytes
    const auto result = Submit(engine.get(), MakeRequest(RandomPrompt(80), 2))->WaitForEnd();
    EXPECT_TRUE(result.end.status.ok()) << result.end.status;
    EXPECT_EQ(result.tokens[0].size(), 2u);
  }
}

TEST_F(EngineTest, NoMoreSequencesThanSlotsAndAWordWhereNoneIsLeftForSnapshots) {
  config_ = SmallConfigs().back().second;
  ASSERT_NE(config_.mamba(), nullptr);
  weights_ = RandomModel(config_, 3);
  EngineOptions o = SmallOptions();
  o.max_num_seqs = 4;
  const int64_t slot_bytes = o.state_cache_bytes / Make(o)->Stats().num_slots;
  for (auto [slots, seqs, warns] : {std::tuple{3, 3, true}, {4, 4, true}, {5, 4, false}}) {
    o.state_cache_bytes = slots * slot_bytes;
    auto engine = Make(o);
    EXPECT_EQ(engine->Stats().num_slots, slots);
    EXPECT_EQ(engine->options().max_num_seqs, seqs);
    EXPECT_EQ(!PrefixCacheWarning(engine->options(), slots).empty(), warns) << slots;
  }
  o.max_num_seqs = 0;  // the default leaves some
  for (auto [slots, seqs, warns] : {std::tuple{1, 1, true}, {2, 1, false}, {4, 3, false}, {9, 6, false}}) {
    o.state_cache_bytes = slots * slot_bytes;
    auto engine = Make(o);
    EXPECT_EQ(engine->options().max_num_seqs, seqs);
    EXPECT_EQ(!PrefixCacheWarning(engine->options(), slots).empty(), warns) << slots;
    EXPECT_EQ(engine->Stats().num_pages, slots * 512 / 16);  // an index of what all slots together can reach
  }
  o.max_num_seqs = 4;
  o.enable_prefix_caching = false;  // then nobody misses them, and more than sequences need are not made
  auto engine = Make(o);
  EXPECT_EQ(engine->Stats().num_slots, 4);
  EXPECT_EQ(PrefixCacheWarning(engine->options(), 4), "");
  EXPECT_EQ(PrefixCacheWarning(SmallOptions(), 0), "");  // of a model without recurrent state
}

// What could never have its pages is refused as too long for the context, not as a matter of load: a client
// that waits and tries again would do so for ever.
TEST_F(EngineTest, TheContextIsCutToWhatTheCacheHolds) {
  for (int ranks : {1, 4}) {
    EngineOptions o = SmallOptions();
    o.tensor_parallel_size = ranks;
    auto roomy = Make(o);
    EXPECT_EQ(roomy->options().max_model_len, 512);
    o.state_cache_bytes =
        o.state_cache_bytes / roomy->Stats().num_pages * 17;  // of which ranks take whole shares
    auto engine = Make(o);
    ASSERT_EQ(engine->Stats().num_pages, ranks == 1 ? 17 : 16);
    // Pages of 16: tiles of four pages go to the ranks in turn. The last token's state is never needed.
    const int limit = 16 * engine->Stats().num_pages + 1;
    EXPECT_EQ(engine->options().max_model_len, limit);
    EXPECT_EQ(SubmitError(engine.get(), MakeRequest(RandomPrompt(limit), 1)).code(),
              absl::StatusCode::kOutOfRange);
    const auto whole = Submit(engine.get(), MakeRequest(RandomPrompt(limit - 3), 100))->WaitForEnd();
    EXPECT_TRUE(whole.end.status.ok()) << whole.end.status;
    EXPECT_EQ(whole.tokens[0].size(), 3u);

    o.max_model_len = limit + 1;
    const auto refused = Engine::Create(o, config_, *weights_);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(refused.status().message().find("max_model_len"), 0u) << refused.status();
    o.max_model_len = limit;
    EXPECT_TRUE(Engine::Create(o, config_, *weights_).ok());
  }
}

}  // namespace
}  // namespace sessa
