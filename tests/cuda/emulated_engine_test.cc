// The whole engine on the emulated CUDA device: what it answers beside an engine on the CPU, and that its
// answers do not depend on what runs beside them.
#include <thread>

#include "engine/group_engine.h"
#include "tests/cuda/delayed_work.h"
#include "tests/engine/engine_fixture.h"
#include "tests/kernels/socket_pairs.h"

namespace sessa {
namespace {

class EmulatedEngineTest : public EngineFixture {
 protected:
  static EngineOptions Cuda() {
    EngineOptions o = SmallOptions();
    o.device = DeviceType::kCuda;
    return o;
  }

  // Every way of sampling; prompts that are one block, several, and cut into chunks.
  static std::vector<Request> Requests() {
    std::vector<Request> requests;
    const auto add = [&](int prompt, float temperature, int n = 1) -> SamplingParams& {
      const int i = static_cast<int>(requests.size());
      requests.push_back(MakeRequest(RandomPrompt(prompt, i), 8, temperature, i, n));
      requests.back().sampling.num_logprobs = -1;
      return requests.back().sampling;
    };
    add(5, 0);
    add(200, 0).num_logprobs = 3;
    add(40, 1, 2).top_p = 0.8f;
    SamplingParams& penalised = add(33, 0.7f);
    penalised.top_k = 12;
    penalised.repetition_penalty = 1.3f, penalised.frequency_penalty = 0.5f,
    penalised.presence_penalty = 0.2f;
    SamplingParams& edited = add(70, 1.2f);
    edited.logit_bias = {{3, 2.0f}, {7, -1.0f}};
    edited.allowed_token_ids = {1, 3, 5, 7, 11, 30};
    edited.num_logprobs = 2;
    add(17, 1).min_p = 0.05f;
    requests.back().sampling.prompt_logprobs = true;
    return requests;
  }

  static std::vector<CollectingSink::Result> RunAll(Engine* engine, const std::vector<Request>& requests) {
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (const Request& r : requests) sinks.push_back(Submit(engine, r));
    std::vector<CollectingSink::Result> results;
    for (const auto& sink : sinks) results.push_back(sink->WaitForEnd());
    return results;
  }

  static void ExpectNear(const std::vector<TokenLogprobs>& a, const std::vector<TokenLogprobs>& b,
                         float tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a[i].logprob, b[i].logprob, tolerance);
      ASSERT_EQ(a[i].top.size(), b[i].top.size());
      for (size_t k = 0; k < a[i].top.size(); ++k)
        EXPECT_NEAR(a[i].top[k].second, b[i].top[k].second, tolerance);
    }
  }
};

TEST_F(EmulatedEngineTest, AnswersAsTheCpuDoes) {
  const std::vector<Request> requests = Requests();
  const auto expected = RunAll(Make(SmallOptions()).get(), requests);
  for (int ranks : {1, 2}) {
    EngineOptions options = Cuda();
    options.tensor_parallel_size = ranks;
    const auto engine = Make(options);
    const auto results = RunAll(engine.get(), requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, request " << i);
      ASSERT_TRUE(results[i].end.status.ok()) << results[i].end.status;
      EXPECT_EQ(results[i].tokens, expected[i].tokens);
      ExpectNear(results[i].prompt.logprobs, expected[i].prompt.logprobs, 1e-4f);
      for (size_t c = 0; c < results[i].logprobs.size(); ++c)
        ExpectNear(results[i].logprobs[c], expected[i].logprobs[c], 1e-4f);
    }
  }
}

// Steps are prepared while the device works, and it works as late as it may: what the host holds for a step
// stays as long as it is needed. Answers that end at a step nobody expected are among them.
TEST_F(EmulatedEngineTest, AnswersTheSameBesideALateDevice) {
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    Request& r = requests.emplace_back(MakeRequest(RandomPrompt(4 + 9 * i, i), 6 + 5 * i, i % 2, i));
    r.sampling.num_logprobs = i == 5 ? 2 : -1;  // the last one's steps are waited for
    r.sampling.ignore_eos = i % 3 == 0;
    if (i == 4) r.sampling.stop_token_ids = {1, 2, 3};
  }
  for (const char* family : {"sessa", "llama", "mamba2"}) {
    SCOPED_TRACE(family);
    for (const auto& [name, config] : SmallConfigs()) {
      if (name == family) config_ = config;
    }
    weights_ = RandomModel(config_, 3);
    const auto expected = RunAll(Make(SmallOptions()).get(), requests);
    EngineOptions options = Cuda();
    options.batch_invariant = true;
    options.num_speculative_tokens = 0;
    options.target_step_time = absl::InfiniteDuration();  // any step is short
    options.max_num_seqs = 3;
    const auto engine = Make(options);
    const int before = emulator::num_steps_ahead();
    emulator::DelayWork(true);
    const auto results = RunAll(engine.get(), requests);
    EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
    emulator::DelayWork(false);
    EXPECT_GT(emulator::num_steps_ahead(), before + 10);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_TRUE(results[i].end.status.ok()) << results[i].end.status;
      EXPECT_EQ(results[i].tokens, expected[i].tokens) << i;
    }
  }
}

// Ranks as in processes of their own, whose device memory goes over sockets.
TEST_F(EmulatedEngineTest, ARankOfAGroupAnswersAsAThread) {
  EngineOptions options = Cuda();
  options.tensor_parallel_size = 2;
  const std::vector<Request> requests = {Requests()[2]};
  const auto expected = RunAll(Make(options).get(), requests);
  SocketPairs sockets(2);
  absl::Status served;
  std::thread rank([&] {
    served = ServeRank(options, std::make_shared<RankGroup>(1, 2, sockets.of(1)), config_, *weights_, [] {});
  });
  auto engine =
      CreateGroupEngine(options, std::make_shared<RankGroup>(0, 2, sockets.of(0)), config_, *weights_);
  EXPECT_TRUE(engine.ok()) << engine.status();
  if (engine.ok()) {
    const auto results = RunAll(engine->get(), requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(results[i].tokens, expected[i].tokens);
      for (size_t c = 0; c < results[i].logprobs.size(); ++c)
        ExpectNear(results[i].logprobs[c], expected[i].logprobs[c], 1e-4f);  // other batches, other bits
    }
    engine->reset();
  } else {
    sockets.Close(0);
  }
  rank.join();
  EXPECT_TRUE(served.ok()) << served;
}

// In bf16 too, where the tensor cores' kernels stand aside.
TEST_F(EmulatedEngineTest, BatchInvariantAnswersAreTheSameAlone) {
  EngineOptions options = Cuda();
  options.weight_dtype = options.state_dtype = DType::kBF16;
  options.batch_invariant = true;
  options.max_step_tokens = 100;
  std::vector<Request> requests = Requests();
  for (Request& r : requests) r.sampling.num_logprobs = 5;
  const auto together = RunAll(Make(options).get(), requests);
  options.enable_prefix_caching = false;
  options.max_step_tokens = 37;
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(i);
    const auto alone = RunAll(Make(options).get(), {requests[i]})[0];
    ASSERT_TRUE(alone.end.status.ok()) << alone.end.status;
    EXPECT_EQ(alone.tokens, together[i].tokens);
    for (size_t c = 0; c < alone.logprobs.size(); ++c)
      ExpectNear(alone.logprobs[c], together[i].logprobs[c], 0);
  }
}

// What a prompt left in pages is found again, in tensor-core prefill as well.
TEST_F(EmulatedEngineTest, PrefixHits) {
  for (DType state : {DType::kBF16, DType::kI8}) {
    EngineOptions options = Cuda();
    options.weight_dtype = DType::kBF16, options.state_dtype = state;
    const auto engine = Make(options);
    Request request = MakeRequest(RandomPrompt(150), 4, 0);
    request.sampling.num_logprobs = 3;
    const auto first = RunAll(engine.get(), {request})[0], again = RunAll(engine.get(), {request})[0];
    EXPECT_EQ(first.prompt.num_cached_tokens, 0);
    EXPECT_EQ(again.prompt.num_cached_tokens, 144);
    EXPECT_EQ(first.tokens, again.tokens);
    ExpectNear(first.logprobs[0], again.logprobs[0], 2e-2f);  // other kernels compute the last rows
  }
}

// Choices of a prompt read what they share once, and the cost of a step counts it once, on either device.
TEST_F(EmulatedEngineTest, SharedReadsAreCounted) {
  for (bool cuda : {false, true}) {
    const auto engine = Make(cuda ? Cuda() : SmallOptions());
    const auto result = RunAll(engine.get(), {MakeRequest(RandomPrompt(150), 8, 1, 3, 3)})[0];
    ASSERT_TRUE(result.end.status.ok()) << result.end.status;
    EXPECT_GT(engine->Stats().num_shared_reads, 0) << (cuda ? "cuda" : "cpu");
  }
}

}  // namespace
}  // namespace sessa
