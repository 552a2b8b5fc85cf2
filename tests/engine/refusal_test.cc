// What the engine does not take: requests, options and weights, each with an error that names it.
#include <limits>

#include "engine/engine.h"
#include "engine/engine_options.h"
#include "kernels/backend.h"
#include "tests/engine/engine_fixture.h"

namespace sessa {
namespace {

using RefusalTest = EngineFixture;

TEST_F(RefusalTest, EveryBadValueIsNamed) {
  auto engine = Make(SmallOptions());
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  struct Case {
    const char* field;
    void (*spoil)(Request*, float nan, float inf);
  };
  const Case cases[] = {
      {"prompt", [](Request* r, float, float) { r->prompt.clear(); }},
      {"prompt", [](Request* r, float, float) { r->prompt[1] = 40; }},
      {"prompt", [](Request* r, float, float) { r->prompt[1] = -1; }},
      {"n", [](Request* r, float, float) { r->n = 0; }},
      {"n", [](Request* r, float, float) { r->n = 129; }},
      {"max_tokens", [](Request* r, float, float) { r->sampling.max_tokens = 0; }},
      {"min_tokens", [](Request* r, float, float) { r->sampling.min_tokens = 11; }},
      {"min_tokens", [](Request* r, float, float) { r->sampling.min_tokens = -1; }},
      {"temperature", [](Request* r, float nan, float) { r->sampling.temperature = nan; }},
      {"temperature", [](Request* r, float, float inf) { r->sampling.temperature = inf; }},
      {"temperature", [](Request* r, float, float) { r->sampling.temperature = -0.1f; }},
      {"top_p", [](Request* r, float, float) { r->sampling.top_p = 0; }},
      {"top_p", [](Request* r, float nan, float) { r->sampling.top_p = nan; }},
      {"top_p", [](Request* r, float, float) { r->sampling.top_p = 1.01f; }},
      {"min_p", [](Request* r, float, float) { r->sampling.min_p = -0.01f; }},
      {"top_k", [](Request* r, float, float) { r->sampling.top_k = -1; }},
      {"presence_penalty", [](Request* r, float, float) { r->sampling.presence_penalty = 2.1f; }},
      {"frequency_penalty", [](Request* r, float, float) { r->sampling.frequency_penalty = -2.1f; }},
      {"repetition_penalty", [](Request* r, float, float) { r->sampling.repetition_penalty = 0; }},
      {"num_speculative_tokens", [](Request* r, float, float) { r->num_speculative_tokens = -2; }},
      {"num_speculative_tokens",
       [](Request* r, float, float) { r->num_speculative_tokens = kMaxDrafts + 1; }},
      {"num_logprobs", [](Request* r, float, float) { r->sampling.num_logprobs = 41; }},
      {"prompt_logprobs_start", [](Request* r, float, float) { r->sampling.prompt_logprobs_start = 0; }},
      {"prompt_logprobs_start", [](Request* r, float, float) { r->sampling.prompt_logprobs_start = 6; }},
      {"stop_token_ids", [](Request* r, float, float) { r->sampling.stop_token_ids = {40}; }},
      {"allowed_token_ids", [](Request* r, float, float) { r->sampling.allowed_token_ids = {-1}; }},
      {"logit_bias",
       [](Request* r, float, float) {
         r->sampling.logit_bias = {{40, 1.0f}};
       }},
      {"logit_bias",
       [](Request* r, float nan, float) {
         r->sampling.logit_bias = {{4, nan}};
       }},
      {"min_tokens",
       [](Request* r, float, float) {
         r->sampling.allowed_token_ids = {7, 8};
         r->sampling.stop_token_ids = {8, 7};
         r->sampling.min_tokens = 1;
       }},
  };
  for (const Case& c : cases) {
    Request request = MakeRequest(RandomPrompt(5), 10);
    c.spoil(&request, nan, inf);
    const absl::Status status = SubmitError(engine.get(), std::move(request));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_EQ(status.message().substr(0, strlen(c.field)), c.field) << status;
  }
  Request huge = MakeRequest(RandomPrompt(5), std::numeric_limits<int>::max());
  huge.n = 2;
  EXPECT_TRUE(Submit(engine.get(), huge)->WaitForEnd().end.status.ok());  // cut at the context's edge
}

TEST_F(RefusalTest, BadOptionsAreNamed) {
  struct Case {
    const char* option;
    void (*spoil)(EngineOptions*);
  };
  const Case cases[] = {
      {"weight_dtype", [](EngineOptions* o) { o->weight_dtype = DType::kF16; }},
      {"state_dtype", [](EngineOptions* o) { o->state_dtype = DType::kF16; }},
      {"page_size", [](EngineOptions* o) { o->page_size = 48; }},
      {"tensor_parallel_size", [](EngineOptions* o) { o->tensor_parallel_size = 3; }},
      {"num_threads", [](EngineOptions* o) { o->num_threads = -1; }},
      {"max_model_len", [](EngineOptions* o) { o->max_model_len = 513; }},
      {"max_model_len", [](EngineOptions* o) { o->max_model_len = 1; }},
      {"max_num_seqs", [](EngineOptions* o) { o->max_num_seqs = -1; }},
      {"max_step_tokens", [](EngineOptions* o) { o->max_step_tokens = -1; }},
      {"target_step_time", [](EngineOptions* o) { o->target_step_time = absl::ZeroDuration(); }},
      {"max_queued_requests", [](EngineOptions* o) { o->max_queued_requests = 0; }},
      {"max_queued_tokens", [](EngineOptions* o) { o->max_queued_tokens = 0; }},
      {"max_queue_time", [](EngineOptions* o) { o->max_queue_time = absl::ZeroDuration(); }},
      {"max_preemptions", [](EngineOptions* o) { o->max_preemptions = -1; }},
      {"speculation", [](EngineOptions* o) { o->num_speculative_tokens = -2; }},
      {"speculation", [](EngineOptions* o) { o->num_speculative_tokens = kMaxDrafts + 1; }},
      {"state_cache_bytes", [](EngineOptions* o) { o->state_cache_bytes = -1; }},
      {"state_cache_bytes", [](EngineOptions* o) { o->state_cache_bytes = 1000; }},
  };
  for (const Case& c : cases) {
    EngineOptions options = SmallOptions();
    c.spoil(&options);
    const auto engine = Engine::Create(options, config_, *weights_);
    ASSERT_FALSE(engine.ok()) << c.option;
    EXPECT_EQ(engine.status().message().substr(0, strlen(c.option)), c.option) << engine.status();
  }
  EngineOptions defaults = SmallOptions();
  defaults.state_cache_bytes = 0;
  defaults.num_threads = defaults.max_step_tokens = 0;
  auto engine = Make(defaults);
  EXPECT_EQ(engine->options().max_step_tokens, 1024);
  defaults.device = DeviceType::kCuda;
  EXPECT_EQ(CompleteOptions(defaults, config_)->max_step_tokens, 2048);
  EXPECT_GT(engine->options().state_cache_bytes, 0);
  EXPECT_GE(engine->options().num_threads, 1);
  EXPECT_EQ(engine->options().max_model_len, 512);
}

TEST_F(RefusalTest, RecurrentStateIsNotKeptInInt8) {
  EngineOptions options = SmallOptions();
  options.state_dtype = DType::kI8;
  for (const auto& [family, config] : SmallConfigs()) {
    const absl::Status status = CompleteOptions(options, config).status();
    EXPECT_EQ(status.ok(), config.mamba() == nullptr) << family;
    if (!status.ok()) {
      EXPECT_EQ(status.message(), "state_dtype: this model keeps its state in float32 always, not by token");
    }
  }
}

// A wrong draft's row must be taken back, which recurrent state cannot be.
TEST_F(RefusalTest, NoDraftsForRecurrentState) {
  EngineOptions options = SmallOptions();
  options.num_speculative_tokens = -1;
  EXPECT_GT(CompleteOptions(options, config_)->num_speculative_tokens, 0);
  options.device = DeviceType::kCuda;
  EXPECT_EQ(CompleteOptions(options, config_)->num_speculative_tokens, 0);
  options.batch_invariant = true;
  EXPECT_GT(CompleteOptions(options, config_)->num_speculative_tokens, 0);
  options = SmallOptions();
  config_ = SmallConfigs().back().second;
  ASSERT_NE(config_.mamba(), nullptr);
  weights_ = RandomModel(config_, 3);
  options.num_speculative_tokens = -1;
  EXPECT_EQ(CompleteOptions(options, config_)->num_speculative_tokens, 0);
  auto engine = Make(options);
  Request request = MakeRequest(RandomPrompt(5), 3);
  request.num_speculative_tokens = 1;
  EXPECT_NE(SubmitError(engine.get(), request).message().find("recurrent state"), std::string::npos);
  request.num_speculative_tokens = 0;
  EXPECT_TRUE(Submit(engine.get(), request)->WaitForEnd().end.status.ok());
  options.num_speculative_tokens = 1;
  EXPECT_NE(Engine::Create(options, config_, *weights_).status().message().find("recurrent state"),
            std::string::npos);
}

TEST(EngineOptionsTest, CoresOfAContainersQuota) {
  for (auto [line, cores] : {std::pair{"max 100000", 0},
                             {"200000 100000", 2},
                             {"150000 100000", 2},
                             {"50000 100000", 1},
                             {"9223372036854775807 1", 1024},
                             {"", 0},
                             {"200000", 0},
                             {"-1 100000", 0},
                             {"1 0", 0}}) {
    EXPECT_EQ(CoresOfQuota(line), cores) << line;
  }
}

TEST_F(RefusalTest, ActivationsInBf16NeedBf16WeightsAndTheInstruction) {
  EngineOptions options = SmallOptions();
  options.activation_dtype = DType::kBF16;
  options.amx = false;
  for (DType weights : {DType::kF32, DType::kI8}) {
    options.weight_dtype = weights;
    const auto engine = Engine::Create(options, config_, *weights_);
    EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(engine.status().message().find("activation_dtype"), std::string::npos) << engine.status();
  }
  options.amx = true;
  EXPECT_EQ(Engine::Create(options, config_, *weights_).ok(), CpuHasAmx());  // of int8 weights
  options.weight_dtype = DType::kBF16;
  EXPECT_EQ(Engine::Create(options, config_, *weights_).ok(), CpuHasBf16Dot() || CpuHasAmx());
}

TEST_F(RefusalTest, ActivationsInInt8NeedInt8WeightsAndTheInstruction) {
  EngineOptions options = SmallOptions();
  options.activation_dtype = DType::kI8;
  for (DType weights : {DType::kF32, DType::kBF16, DType::kI8}) {
    for (bool amx : {false, true}) {
      options.weight_dtype = weights, options.amx = amx;
      const auto engine = Engine::Create(options, config_, *weights_);
      EXPECT_EQ(engine.ok(), weights == DType::kI8 && CpuHasInt8Dot());
      if (engine.ok()) continue;
      EXPECT_NE(engine.status().message().find("activation_dtype"), std::string::npos) << engine.status();
    }
  }
}

TEST(OptionsTest, ActivationsAreInBf16ByDefaultWhereThatIsServedAndFaster) {
  for (const DeviceType device : {DeviceType::kCpu, DeviceType::kCuda}) {
    for (const DType weights : {DType::kF32, DType::kBF16, DType::kI8}) {
      for (const bool amx : {false, true}) {
        EngineOptions options;
        options.device = device, options.weight_dtype = weights, options.amx = amx;
        options.activation_dtype = AutoActivationDType(options);
        const bool on_amx = amx && CpuHasAmx(), faster = weights == DType::kBF16
                                                             ? on_amx || CpuHasBf16Dot()
                                                             : weights == DType::kI8 && on_amx;
        EXPECT_EQ(options.activation_dtype == DType::kBF16, device == DeviceType::kCpu && faster);
        ModelConfig config;
        EXPECT_TRUE(CompleteOptions(options, config).ok());
      }
    }
  }
}

TEST_F(RefusalTest, WeightsThatAreNotNumbersAreRefused) {
  class Spoiled final : public WeightSource {
   public:
    explicit Spoiled(const WeightSource& good)
        : good_(good), nan_(40 * 48, std::numeric_limits<float>::quiet_NaN()) {}
    absl::StatusOr<TensorView> Get(std::string_view name) const override {
      auto view = good_.Get(name);
      if (view.ok() && name == "embed.weight") view->data = nan_.data();
      return view;
    }
    const WeightSource& good_;
    std::vector<float> nan_;
  };
  const auto engine = Engine::Create(SmallOptions(), config_, Spoiled(*weights_));
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument) << engine.status();
}

}  // namespace
}  // namespace sessa
