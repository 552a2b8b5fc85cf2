// Distances between texts by their continuations, through the real engine with a model so small that every
// continuation can be enumerated.
#include "server/core/similarity.h"

#include <cmath>
#include <condition_variable>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/errors.h"
#include "server/core/service.h"
#include "tests/engine/engine_fixture.h"

namespace sessa {
namespace {

using Ids = std::vector<int32_t>;
constexpr int kEos = 5, kVocab = 6;

Ids RandomIds(int n, int seed) {
  Ids ids = RandomPrompt(n, seed);
  for (int32_t& id : ids) id %= kEos;
  return ids;
}

class SimilarityTest : public EngineFixture {
 protected:
  void SetUp() override {
    config_.vocab_size = kVocab;
    config_.tie_word_embeddings = false;  // else logits are so large that one token is all but certain
    config_.eos_token_ids = {kEos};
    weights_ = RandomModel(config_, 3);
    StartService(Limits());
  }

  void StartService(const Limits& limits) {
    service_.reset();
    ServiceOptions options;
    options.limits = limits;
    service_ = std::make_unique<Service>(options);
    auto engine = Make(SmallOptions());
    engine_ = engine.get();
    ServedModel model;
    model.engine = std::shared_ptr<Engine>(std::move(engine));
    model.defaults = defaults_;
    model.defaults.temperature = 0;  // the checkpoint's: not the distribution that is asked about
    service_->SetModel(model);
  }

  static SimilarityRequest Of(std::vector<Ids> texts, int num_samples = 16, int max_tokens = 3) {
    SimilarityRequest request;
    for (Ids& text : texts) request.texts.emplace_back(std::move(text));
    request.num_samples = num_samples;
    request.max_tokens = max_tokens;
    request.seed = 7;
    return request;
  }

  absl::StatusOr<SimilarityResult> Run(SimilarityRequest request) {
    auto similarity =
        Similarity::Start(service_.get(), std::move(request), "", service_->Begin("rest"), nullptr);
    if (!similarity.ok()) return similarity.status();
    struct News {
      Mutex mutex;
      std::condition_variable_any condition;
      bool come ABSL_GUARDED_BY(mutex) = true;
    };
    auto news = std::make_shared<News>();
    (*similarity)->SetNotify([news] {
      MutexLock lock(&news->mutex);
      news->come = true;
      news->condition.notify_all();
    });
    while (!(*similarity)->ended()) {
      if ((*similarity)->Advance(3)) continue;
      MutexLock lock(&news->mutex);
      while (!news->come && !(*similarity)->ended()) news->condition.wait(news->mutex);
      news->come = false;
    }
    return (*similarity)->result();
  }

  // log p(token | text), of each token.
  std::vector<double> Next(const Ids& text) {
    Request request = MakeRequest(text, 1);
    request.sampling.num_logprobs = kVocab;
    const auto result = Submit(engine_, request)->WaitForEnd();
    std::vector<double> logprobs(kVocab);
    for (const auto& [id, logprob] : result.logprobs[0][0].top) logprobs[id] = logprob;
    return logprobs;
  }

  // KL between what follows `p` and what follows `q`, over all continuations of at most `length` tokens.
  double ExactKl(Ids p, Ids q, int length, bool ignore_eos) {
    const std::vector<double> after_p = Next(p), after_q = Next(q);
    double kl = 0;
    for (int token = 0; token < kVocab; ++token) {
      double further = 0;
      if (length > 1 && (token != kEos || ignore_eos)) {
        p.push_back(token);
        q.push_back(token);
        further = ExactKl(p, q, length - 1, ignore_eos);
        p.pop_back();
        q.pop_back();
      }
      kl += std::exp(after_p[token]) * (after_p[token] - after_q[token] + further);
    }
    return kl;
  }

  SamplingDefaults defaults_;  // of the checkpoint, for the next StartService
  std::unique_ptr<Service> service_;
  Engine* engine_ = nullptr;  // the service's
};

void ExpectNear(const Estimate& estimate, double exact) {
  EXPECT_GT(exact, 0);
  EXPECT_GT(estimate.standard_error, 0);
  EXPECT_NEAR(estimate.value, exact, 3 * estimate.standard_error);
}

TEST_F(SimilarityTest, NearTheExactDivergenceOfASmallModel) {
  const Ids a = {0, 1, 2, 1}, b = {4, 3, 3};
  for (const bool ignore_eos : {false, true}) {
    SimilarityRequest request = Of({a, b}, 256);
    request.ignore_eos = ignore_eos;
    const auto result = Run(std::move(request));
    ASSERT_TRUE(result.ok()) << result.status();
    const Divergences& d = result->at(0, 1);
    const double ab = ExactKl(a, b, 3, ignore_eos), ba = ExactKl(b, a, 3, ignore_eos);
    ExpectNear(d.p_to_q, ab);
    ExpectNear(d.q_to_p, ba);
    ExpectNear(d.jeffreys, ab + ba);
    EXPECT_LT(d.jeffreys.standard_error, 0.2 * (ab + ba)) << "too wide to tell anything";
    if (ignore_eos) {
      EXPECT_DOUBLE_EQ(d.jeffreys.per_token, d.jeffreys.value / 3);
    }
  }
}

TEST_F(SimilarityTest, SymmetricZeroForEqualTextsAndRepeatable) {
  const Ids a = RandomIds(40, 1), b = RandomIds(33, 2), c = {2};
  const auto result = Run(Of({a, b, a, c}));
  ASSERT_TRUE(result.ok()) << result.status();
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      EXPECT_EQ(result->at(i, j).jeffreys.value, result->at(j, i).jeffreys.value);
      EXPECT_EQ(result->at(i, j).p_to_q.value, result->at(j, i).q_to_p.value);
      const bool equal = i == j || (i % 2 == 0 && j % 2 == 0);
      EXPECT_EQ(result->at(i, j).jeffreys.value == 0, equal) << i << j;
      EXPECT_EQ(result->at(i, j).jeffreys.standard_error == 0, equal) << i << j;
    }
  }
  EXPECT_GT(result->usage.cached_tokens, 0) << "the texts' own pages";
  // Whatever else is asked beside it, in whatever order.
  const auto again = Run(Of({b, a}));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->at(0, 1).jeffreys.value, result->at(0, 1).jeffreys.value);
  EXPECT_EQ(again->at(0, 1).jeffreys.standard_error, result->at(0, 1).jeffreys.standard_error);
  SimilarityRequest other = Of({b, a});
  other.seed = 8;
  EXPECT_NE(Run(std::move(other))->at(0, 1).jeffreys.value, again->at(0, 1).jeffreys.value);
}

TEST_F(SimilarityTest, TheStandardErrorIsTheEstimatesOwnSpread) {
  const Ids a = {0, 1, 2, 1}, b = {4, 3, 3};
  const double exact = ExactKl(a, b, 3, false) + ExactKl(b, a, 3, false);
  double sum = 0, squares = 0;
  constexpr int kRuns = 40;
  for (int seed = 0; seed < kRuns; ++seed) {
    SimilarityRequest request = Of({a, b}, 64);
    request.seed = seed;
    const Estimate jeffreys = Run(std::move(request))->at(0, 1).jeffreys;
    const double off = (jeffreys.value - exact) / jeffreys.standard_error;
    sum += off;
    squares += off * off;
  }
  EXPECT_LT(std::abs(sum / kRuns), 0.5) << "three standard errors of a mean of 40";
  EXPECT_NEAR(std::sqrt(squares / kRuns), 1, 0.35);
}

TEST_F(SimilarityTest, MoreSamplesThanARequestHasChoices) {
  const int n = 2 * Limits().max_n + 3;
  const auto result = Run(Of({{0}, {1}}, n, 4));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->usage.completion_tokens, 2 * n) << "all of them";
  EXPECT_LE(result->usage.completion_tokens, 2 * n * 4);
  EXPECT_GT(result->at(0, 1).jeffreys.standard_error, 0);
}

TEST_F(SimilarityTest, LimitsAtTheirEdges) {
  const auto refused = [this](SimilarityRequest request) {
    return Describe(Run(std::move(request)).status()).param;
  };
  const Limits limits;
  EXPECT_EQ(refused(Of({{0}})), "input");
  EXPECT_EQ(refused(Of(std::vector<Ids>(limits.max_similarity_texts, {0}), 2)), "");
  EXPECT_EQ(refused(Of(std::vector<Ids>(limits.max_similarity_texts + 1, {0}), 2)), "input");
  EXPECT_EQ(refused(Of({{0}, {kVocab}})), "input");
  EXPECT_EQ(refused(Of({{0}, {}})), "input");
  EXPECT_EQ(refused(Of({{0}, {0}}, 1)), "n");
  EXPECT_EQ(refused(Of({{0}, {0}}, limits.max_similarity_samples, 1)), "");
  EXPECT_EQ(refused(Of({{0}, {0}}, limits.max_similarity_samples + 1, 1)), "n");
  EXPECT_EQ(refused(Of(std::vector<Ids>(16, {0}), 35)), "n");
  EXPECT_EQ(refused(Of({{0}, {0}}, 2, 0)), "max_tokens");
  const int fits = config_.max_position_embeddings - 4;
  EXPECT_EQ(refused(Of({RandomIds(fits, 1), {0}}, 2, 3)), "");
  EXPECT_EQ(refused(Of({RandomIds(fits + 1, 1), {0}}, 2, 3)), "input");
  EXPECT_EQ(service_->metrics().received(), service_->metrics().ended());
}

// Its log-probabilities are its own affair; and the checkpoint's bound of answers is no shorter continuation.
TEST_F(SimilarityTest, WhatIsTooMuchNamesWhatTheCallerCanChange) {
  Limits limits;
  limits.max_answer_bytes = 20000;
  StartService(limits);
  const absl::Status large = Run(Of({{0}, {1}}, 16, 20)).status();
  EXPECT_EQ(Describe(large).code, "answer_too_large") << large;
  EXPECT_EQ(Describe(large).param, "max_tokens");
  EXPECT_TRUE(Run(Of({{0}, {1}}, 2, 3)).ok());

  limits = Limits();
  defaults_.max_tokens = 3;
  StartService(limits);
  EXPECT_TRUE(Run(Of({{0}, {1}}, 2, 3)).ok());
  EXPECT_EQ(Describe(Run(Of({{0}, {1}}, 2, 4)).status()).param, "max_tokens");
}

TEST_F(SimilarityTest, IsOneRequestAndLeavesNothingBehind) {
  ASSERT_TRUE(Run(Of({{0}, {1}, {2}})).ok());
  EXPECT_EQ(service_->metrics().received(), 1);
  EXPECT_EQ(service_->metrics().ended(), 1);
  for (int events : {0, 1, 60}) {  // before the first, while sampling, while scoring
    auto left = Similarity::Start(service_.get(), Of({{0}, {1}, {2}}), "", service_->Begin("rest"), nullptr);
    ASSERT_TRUE(left.ok());
    for (int i = 0; i < events;) i += (*left)->Advance(1);
    left->reset();
  }
  EXPECT_EQ(service_->metrics().ended(), 4);
  EXPECT_EQ(service_->metrics().outcome(Outcome::kCancelled), 3);
  EXPECT_EQ(service_->byte_budget().used(), 0);
  while (engine_->Stats().num_running + engine_->Stats().num_waiting > 0)
    absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(engine_->Stats().num_used_pages, 0);
}

TEST_F(SimilarityTest, TheDeadlineEndsIt) {
  SimilarityRequest request = Of({{0}, {1}}, 256, 400);
  request.ignore_eos = true;
  request.timeout = absl::Milliseconds(50);
  EXPECT_EQ(Run(std::move(request)).status().code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace sessa
