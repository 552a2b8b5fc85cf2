// The power-law impulse response of design.md, section 2, at 100 000 tokens, through Scheduler, pages and Workers: the whole
// path of the engine but for its inbox. Wrong paging, wrong normalisation and lost precision all show here.
#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/scheduler.h"
#include "engine/worker.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "tests/engine/collecting_sink.h"
#include "tests/engine/impulse_model.h"

namespace sessa {
namespace {

TEST(ImpulseTest, DecaysAsAPowerLawOver100000Tokens) {
  constexpr int kTokens = 100000, kImpulse = 37;
  constexpr double c = 0.7;
  const ModelConfig config = ImpulseConfig(kTokens + 1);
  WorkerOptions w;
  w.weight_dtype = w.state_dtype = DType::kF32;
  w.num_threads = 2;
  w.max_rows = 1001;
  w.max_pages = kTokens / w.page_size + 1;
  w.state_cache_bytes = int64_t{1} << 30;
  auto workers = Workers::Create(w, config, ImpulseWeights(config, c));
  ASSERT_TRUE(workers.ok()) << workers.status();
  SchedulerOptions o;
  o.num_pages = (*workers)->num_pages();
  o.max_step_tokens = w.max_rows;
  o.max_model_len = kTokens + 1;
  o.target_step_time = absl::InfiniteDuration();
  Scheduler scheduler(o);
  Request request;
  request.prompt.resize(kTokens);
  request.prompt[kImpulse] = 1;
  request.sampling.max_tokens = 1;
  request.sink = std::make_shared<CollectingSink>();
  ASSERT_TRUE(scheduler.Add(1, std::move(request), absl::Now()).ok());

  std::vector<SequenceResult> results;
  std::vector<SchedulerEvent> events;
  std::vector<int32_t> pages;
  while (scheduler.has_work()) {
    const StepPlan& plan = scheduler.Schedule(absl::Now());
    ASSERT_TRUE((*workers)->Execute(plan, &results).ok());
    pages = plan.sequences[0].pages;
    scheduler.Commit(plan, results, absl::Now(), &events);
  }
  std::vector<float> s(kTokens * kImpulseD);
  (*workers)->ReadStateForTesting(0, pages, kTokens, s.data());

  const double impulse = s[kImpulse * kImpulseD];
  ASSERT_NEAR(impulse, 1, 1e-4);
  double worst = 0;
  for (int t = kImpulse + 1; t < kTokens; ++t) {
    // The sum S of s up to t grows by (1 + c / t): s_t = (c / t) S_{t-1}, a ratio of gamma functions.
    const double tau = kImpulse;
    const double S = std::exp(std::lgamma(t + c) - std::lgamma(t) + std::lgamma(tau + 1) - std::lgamma(tau + 1 + c));
    const double expected = impulse * c / t * S;
    worst = std::max(worst, std::abs(s[t * kImpulseD] - expected) / expected);
  }
  EXPECT_LE(worst, 1e-4);
  for (int t = 0; t < kImpulse; ++t) ASSERT_LT(std::abs(s[t * kImpulseD]), 1e-6);
}

}  // namespace
}  // namespace sessa
