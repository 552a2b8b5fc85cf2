// The sampler: each parameter against the set or the distribution that its definition asks for.
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "kernels/cpu/sample.h"

namespace sessa {
namespace {

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 1.0f, 2.0f, -3.0f};
constexpr int kV = 6;
constexpr int kDraws = 200000;

// A sampler with the host's Backend::Sample behind it.
class HostSampler : public Sampler {
 public:
  using Sampler::Sampler;
  int32_t Sample(const std::vector<float>& logits, const SamplingParams& params,
                 const std::vector<int32_t>& tokens, int prompt_size, uint64_t seed) {
    std::vector<SampleEdit> edits;
    const SampleRow row = Row(params, tokens, prompt_size, seed, &edits);
    return row_sampler_.Sample(logits, row, edits);
  }

 private:
  cpu::RowSampler row_sampler_;
};

SamplingParams Greedy() {
  SamplingParams p;
  p.temperature = 0;
  return p;
}

int32_t Sample(const SamplingParams& p, std::vector<int32_t> tokens = {0}, int prompt_size = 1,
               uint64_t seed = 1, std::vector<float> logits = kLogits) {
  return HostSampler(kV, {5}).Sample(logits, p, tokens, prompt_size, seed);
}

// Frequencies over many positions of one stream.
std::vector<double> Frequencies(const SamplingParams& p, const std::vector<float>& logits = kLogits) {
  HostSampler sampler(kV, {5});
  std::vector<double> f(kV);
  for (int i = 0; i < kDraws; ++i)
    f[sampler.Sample(logits, p, std::vector<int32_t>{0}, 1, i)] += 1.0 / kDraws;
  return f;
}

void ExpectDistribution(const std::vector<double>& f, std::vector<double> weights) {
  double total = 0;
  for (double w : weights) total += w;
  for (int i = 0; i < kV; ++i) {
    const double p = weights[i] / total;
    EXPECT_NEAR(f[i], p, 5 * std::sqrt(p * (1 - p) / kDraws) + 1e-9) << i;  // impossible ones must not occur
  }
}

TEST(SamplerTest, GreedyTakesTheLowestOfEquals) { EXPECT_EQ(Sample(Greedy()), 1); }

TEST(SamplerTest, NaNIsNeverChosen) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Sample(Greedy(), {0}, 1, 1, {nan, 0, nan, 1, nan, 0}), 3);
  SamplingParams p;
  const auto f = Frequencies(p, {nan, 0, nan, 0, nan, 0});
  ExpectDistribution(f, {0, 1, 0, 1, 0, 1});
}

TEST(SamplerTest, TemperatureGivesTheSoftmax) {
  for (float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplingParams p;
    p.temperature = temperature;
    std::vector<double> weights;
    for (float x : kLogits) weights.push_back(std::exp(x / temperature));
    ExpectDistribution(Frequencies(p), weights);
  }
}

TEST(SamplerTest, TinyTemperatureDoesNotOverflow) {
  SamplingParams p;
  p.temperature = 1e-30f;
  ExpectDistribution(Frequencies(p), {0, 1, 0, 0, 1, 0});
}

TEST(SamplerTest, TopKKeepsTheBestK) {
  SamplingParams p;
  p.top_k = 1;
  ExpectDistribution(Frequencies(p), {0, 1, 0, 0, 0, 0});
  p.top_k = 3;
  ExpectDistribution(Frequencies(p), {0, std::exp(2), 0, std::exp(1), std::exp(2), 0});
  p.top_k = kV;
  ExpectDistribution(Frequencies(p),
                     {std::exp(0.5), std::exp(2), std::exp(-1), std::exp(1), std::exp(2), std::exp(-3)});
}

TEST(SamplerTest, TopKOfFewerCandidatesKeepsAll) {
  SamplingParams p;
  p.top_k = 4;
  p.allowed_token_ids = {2, 5};
  ExpectDistribution(Frequencies(p), {0, 0, std::exp(-1), 0, 0, std::exp(-3)});
}

TEST(SamplerTest, TopPKeepsTheSmallestNucleus) {
  // Probabilities 0.4, 0.3, 0.2, 0.1.
  const float out = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {std::log(.2f), std::log(.4f), out, std::log(.1f), std::log(.3f), out};
  SamplingParams p;
  p.top_p = 0.39f;
  ExpectDistribution(Frequencies(p, logits), {0, 1, 0, 0, 0, 0});
  p.top_p = 0.69f;
  ExpectDistribution(Frequencies(p, logits), {0, 4, 0, 0, 3, 0});
  p.top_p = 0.71f;
  ExpectDistribution(Frequencies(p, logits), {2, 4, 0, 0, 3, 0});
  p.top_p = 1;
  ExpectDistribution(Frequencies(p, logits), {2, 4, 0, 1, 3, 0});
}

// Sets against a plain sort, for scores near each other, far apart and equal: what is drawn, over many draws
// at a temperature that makes the scores near equal, is exactly what may be.
TEST(SamplerTest, KeptSetsAreThoseOfASort) {
  constexpr int kSize = 60, kTries = 3000;
  for (float scale : {0.0f, 0.001f, 1.0f, 30.0f, 1e6f, 1e30f}) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    std::vector<std::pair<float, int>> order;  // negated score, id: ascending is best first
    std::vector<float> logits;
    for (int id = 0; id < kSize; ++id) {
      logits.push_back(std::round(normal(random) * 8) / 8 * scale);  // some are equal
      order.emplace_back(-logits.back(), id);
    }
    std::sort(order.begin(), order.end());
    SamplingParams p;
    p.temperature = std::max(scale, 1.0f) * 10;
    double total = 0;
    for (float x : logits) total += std::exp(x / p.temperature);
    for (int keep : {1, 2, 7, 30, kSize - 1}) {
      std::set<int> best;
      double mass = 0;  // between that of keep - 1 and that of keep
      for (int i = 0; i < keep; ++i) {
        best.insert(order[i].second);
        mass += std::exp(-order[i].first / p.temperature) / total * (i + 1 < keep ? 1 : 0.5);
      }
      for (bool top_k : {true, false}) {
        SCOPED_TRACE(testing::Message()
                     << (top_k ? "top_k" : "top_p") << ", scale " << scale << ", keeps " << keep);
        p.top_k = top_k ? keep : 0;
        p.top_p = top_k ? 1 : static_cast<float>(mass);
        HostSampler sampler(kSize, {});
        std::set<int> drawn;
        for (int i = 0; i < kTries; ++i)
          drawn.insert(sampler.Sample(logits, p, std::vector<int32_t>{0}, 1, i));
        EXPECT_EQ(best, drawn);
      }
    }
  }
}

TEST(SamplerTest, MinPIsRelativeToTheBest) {
  const std::vector<float> logits = {std::log(.2f), std::log(.4f), std::log(.01f),
                                     std::log(.1f), std::log(.3f), -100};
  SamplingParams p;
  p.min_p = 0.49f;
  ExpectDistribution(Frequencies(p, logits), {2, 4, 0, 0, 3, 0});
  p.min_p = 0.51f;
  ExpectDistribution(Frequencies(p, logits), {0, 4, 0, 0, 3, 0});
  p.min_p = 1;
  ExpectDistribution(Frequencies(p, logits), {0, 1, 0, 0, 0, 0});
}

TEST(SamplerTest, PenaltiesCountAsDefined) {
  SamplingParams p = Greedy();
  p.presence_penalty = 1.5f;
  EXPECT_EQ(Sample(p, {1, 1}, 2), 1) << "the prompt does not count";
  EXPECT_EQ(Sample(p, {0, 1}, 1), 4);
  p = Greedy();
  p.frequency_penalty = 0.6f;
  EXPECT_EQ(Sample(p, {0, 1, 4, 4}, 1), 1) << "1.4 against 0.8";
  EXPECT_EQ(Sample(p, {0, 1, 1, 4, 4}, 1), 3) << "0.8 against 1.0";
  p = Greedy();
  p.repetition_penalty = 2.5f;
  EXPECT_EQ(Sample(p, {1}, 1), 4) << "the prompt counts";
  EXPECT_EQ(Sample(p, {1, 4}, 1), 3);
  EXPECT_EQ(Sample(p, {0, 2}, 2, 1, {-1, -2, -1, -2, -2.4f, -9}), 1) << "negative logits fall";
}

TEST(SamplerTest, RepeatedCallsStartClean) {
  HostSampler sampler(kV, {});
  SamplingParams p = Greedy();
  p.repetition_penalty = 10;
  p.presence_penalty = 2;
  EXPECT_EQ(sampler.Sample(kLogits, p, std::vector<int32_t>{1, 4, 1}, 1, 0), 3);
  EXPECT_EQ(sampler.Sample(kLogits, p, std::vector<int32_t>{2}, 1, 0), 1);
}

TEST(SamplerTest, BiasAllowedAndMinTokens) {
  SamplingParams p = Greedy();
  p.logit_bias = {{5, 100.0f}};
  EXPECT_EQ(Sample(p), 5);
  p.min_tokens = 1;
  EXPECT_EQ(Sample(p), 1) << "eos is masked";
  EXPECT_EQ(Sample(p, {0, 3}, 1), 5) << "min_tokens reached";
  p.ignore_eos = true;
  EXPECT_EQ(Sample(p), 5) << "an eos that ends nothing need not be masked";
  p = Greedy();
  p.min_tokens = 2;
  p.stop_token_ids = {1};
  EXPECT_EQ(Sample(p), 4);
  p = Greedy();
  p.allowed_token_ids = {2, 5, 0};
  EXPECT_EQ(Sample(p), 0);
  p.temperature = 1;
  ExpectDistribution(Frequencies(p), {std::exp(.5), 0, std::exp(-1), 0, 0, std::exp(-3)});
}

// What a row's edits say: each id once, and in the order of the parameters.
TEST(SamplerTest, EditsAreUnique) {
  Sampler sampler(kV, {5});
  SamplingParams p;
  p.allowed_token_ids = {4, 0, 4, 5, 2};
  p.logit_bias = {{0, 1.0f}, {1, 9.0f}, {0, 0.5f}, {5, 3.0f}};
  p.min_tokens = 4;
  p.stop_token_ids = {2, 3, 2};
  p.repetition_penalty = 2;
  std::vector<SampleEdit> edits(7);  // of other rows
  const std::vector<int32_t> tokens = {4, 4, 1, 0, 0, 3};
  for (int repeat = 0; repeat < 2; ++repeat) {
    const int first = static_cast<int>(edits.size());
    const SampleRow row = sampler.Row(p, tokens, 3, 1, &edits);
    EXPECT_TRUE(row.only_edited);
    EXPECT_EQ(row.first_edit, first);
    ASSERT_EQ(row.num_edits, 4);
    const float out = -std::numeric_limits<float>::infinity();
    const SampleEdit expected[] = {{4, 0, 0}, {0, 1.5f, 2}, {5, out, -1}, {2, out, -1}};
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(edits[first + i].id, expected[i].id);
      EXPECT_EQ(edits[first + i].bias, expected[i].bias);
      EXPECT_EQ(edits[first + i].count, expected[i].count);
    }
  }
  p = {};
  const SampleRow plain = sampler.Row(p, tokens, 3, 1, &edits);
  EXPECT_FALSE(plain.only_edited);
  EXPECT_EQ(plain.num_edits, 0);
  EXPECT_EQ(plain.uniform, UniformAt(1, 3));
}

TEST(SamplerTest, SeedAndPositionDecide) {
  SamplingParams p;
  const std::vector<float> flat(kV);
  std::map<int32_t, int> by_seed, by_position;
  for (int i = 0; i < 600; ++i) {
    EXPECT_EQ(Sample(p, {0}, 1, i, flat), Sample(p, {0}, 1, i, flat));
    ++by_seed[Sample(p, {0}, 1, i, flat)];
    ++by_position[Sample(p, std::vector<int32_t>(i + 1), 1, 9, flat)];
  }
  EXPECT_EQ(by_seed.size(), kV);
  EXPECT_EQ(by_position.size(), kV);
  // The stream of seed + 1 is not that of seed, moved by one.
  int same = 0;
  for (int i = 0; i < 1000; ++i) same += UniformAt(1, i + 1) == UniformAt(2, i);
  EXPECT_EQ(same, 0);
}

TEST(SamplerTest, LogprobsAreOfTheModelsOwnDistribution) {
  HostSampler sampler(kV, {});
  double total = 0;
  for (float x : kLogits) total += std::exp(x);
  const TokenLogprobs l = sampler.Logprobs(kLogits, 3, 3);
  EXPECT_NEAR(l.logprob, 1 - std::log(total), 1e-6);
  ASSERT_EQ(l.top.size(), 3u);
  EXPECT_EQ(l.top[0].first, 1);
  EXPECT_EQ(l.top[1].first, 4);
  EXPECT_EQ(l.top[2].first, 3);
  EXPECT_EQ(l.top[2].second, l.logprob);
  EXPECT_EQ(l.rank, 3);
  EXPECT_TRUE(sampler.Logprobs(kLogits, 0, 0).top.empty());
  EXPECT_EQ(sampler.Logprobs(kLogits, 0, 20).top.size(), kV);
}

// However few of the best are asked for, and where others have the same logit or none.
TEST(SamplerTest, RankIsThePlaceAmongAll) {
  HostSampler sampler(kV, {});
  std::vector<float> logits(kV);
  for (int i = 0; i < kV; ++i) logits[i] = static_cast<float>(i / 3 % 3);
  logits[0] = -std::numeric_limits<float>::infinity();
  logits[kV - 1] = std::numeric_limits<float>::quiet_NaN();
  const TokenLogprobs all = sampler.Logprobs(logits, 0, kV);
  for (int place = 0; place < kV; ++place)
    EXPECT_EQ(sampler.Logprobs(logits, all.top[place].first, 0).rank, place + 1);
}

}  // namespace
}  // namespace sessa
