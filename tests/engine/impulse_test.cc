// The power-law impulse response of docs/architecture.md, "The model", at 100 000 tokens and through the
// whole engine: one request whose prompt is cut into chunks, its state in pages, s read off the
// log-probabilities. Wrong paging, wrong normalisation and lost precision all show here.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/engine/engine_fixture.h"
#include "tests/engine/impulse_model.h"

namespace sessa {
namespace {

constexpr int kTokens = 100000, kImpulse = 37;
constexpr double kGamma = 0.7;

// logit of id 0 - logit of id 1.
double LogitDifference(const TokenLogprobs& logprobs) {
  const auto& top = logprobs.top;  // both ids, the best first
  const double difference = static_cast<double>(top[0].second) - top[1].second;
  return top[0].first == 0 ? difference : -difference;
}

class ImpulseTest : public testing::TestWithParam<DType> {};

TEST_P(ImpulseTest, DecaysAsAPowerLawOver100000Tokens) {
  const ModelConfig config = ImpulseConfig(kTokens + 1);
  EngineOptions o;
  o.weight_dtype = DType::kF32;
  o.state_dtype = GetParam();
  o.state_cache_bytes = 64 << 20;
  auto engine = Engine::Create(o, config, ImpulseWeights(config, kGamma));
  ASSERT_TRUE(engine.ok()) << engine.status();
  Request request;
  request.prompt.resize(kTokens);
  request.prompt[kImpulse] = 1;
  request.sampling.max_tokens = 1;
  request.sampling.num_logprobs = 2;
  request.sampling.prompt_logprobs = true;
  const auto submit = [&] {
    auto sink = std::make_shared<CollectingSink>();
    request.sink = sink;
    EXPECT_TRUE((*engine)->Submit(request).ok());
    return sink->WaitForEnd();
  };
  const auto whole = submit();
  ASSERT_TRUE(whole.end.status.ok()) << whole.end.status;
  EXPECT_GE((*engine)->Stats().num_steps, kTokens / (*engine)->options().max_step_tokens);

  ASSERT_EQ(whole.prompt.logprobs.size(), kTokens - 1u);
  std::vector<TokenLogprobs> outputs = whole.prompt.logprobs;  // of rows 0, 1, ...
  outputs.push_back(whole.logprobs[0][0]);
  double worst = 0;
  for (int t = kImpulse + 1; t < kTokens; ++t) {
    const double expected = ExpectedImpulseResponse(kGamma, kImpulse, t);
    const double s = ImpulseResponseOf(LogitDifference(outputs[t]), config.norm_eps);
    worst = std::max(worst, std::abs(s - expected) / expected);
  }
  std::printf("worst error: %.1e of the value\n", worst);  // docs/performance.md has it
  EXPECT_LE(worst, GetParam() == DType::kF32 ? 1e-4 : GetParam() == DType::kBF16 ? 5e-3 : 1e-2);
  EXPECT_NEAR(ImpulseResponseOf(LogitDifference(outputs[kImpulse]), config.norm_eps), 1, 0.01);
  for (int t = 0; t < kImpulse; ++t) ASSERT_LT(std::abs(LogitDifference(outputs[t])), 1e-4);

  // The next one finds all pages but the last, and the same bits.
  request.sampling.prompt_logprobs = false;
  const auto hit = submit();
  const int page_size = (*engine)->options().page_size;
  EXPECT_EQ(hit.prompt.num_cached_tokens, (kTokens - 1) / page_size * page_size);
  EXPECT_EQ(hit.logprobs[0][0].top, whole.logprobs[0][0].top);
}

INSTANTIATE_TEST_SUITE_P(State, ImpulseTest, testing::Values(DType::kF32, DType::kBF16, DType::kI8),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace sessa
