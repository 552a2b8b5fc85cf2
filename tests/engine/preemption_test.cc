// What a cache that is too small costs: the same closed loop of requests with pages to spare and with half of
// those it used then at its peak, in the time of a synthetic step. Lengths are known ahead where answers end
// at their limit, and not where an eos ends them.
#include <algorithm>
#include <random>

#include "tests/engine/scheduler_harness.h"

namespace sessa {
namespace {

struct Load {
  const char* name;
  int page_size, num_clients, num_requests;
  int min_prompt, max_prompt, min_answer, max_answer;
  bool eos;  // answers have 32 tokens on average, at most those above
};

constexpr Load kLoads[] = {{"known", 16, 16, 160, 64, 192, 64, 192, false},
                           {"long", 64, 8, 40, 500, 600, 600, 700, false},
                           {"mixed", 16, 16, 160, 16, 512, 16, 256, false},
                           {"eos", 16, 16, 400, 16, 64, 192, 192, true}};

struct Outcome {
  double tokens_per_second = 0;
  int peak_pages = 0;
  int most_preemptions = 0;  // of one request
  double recomputed = 0;     // share of the tokens computed
};

// Two slow cores at shape A: 17 ms for the weights, 2.5 ms a row, 4 us a token read (docs/performance.md).
double SecondsOf(const StepPlan& plan) {
  double seconds = 17e-3 + 2.5e-3 * plan.num_rows();
  for (const PlanSequence& s : plan.sequences) seconds += 4e-6 * (s.start + s.num_rows);
  return seconds;
}

Outcome Play(const Load& load, int num_pages, int max_preemptions) {
  SchedulerHarness h({.page_size = load.page_size, .num_pages = num_pages},
                     {.max_step_tokens = 128,
                      .max_model_len = load.max_prompt + load.max_answer,
                      .max_preemptions = max_preemptions});
  std::mt19937 rng(7);
  const auto between = [&rng](int low, int high) { return low + static_cast<int>(rng() % (high - low + 1)); };
  Outcome outcome;
  double seconds = 0;
  int64_t rows = 0;
  RequestId next = 1;
  std::vector<RequestId> clients(load.num_clients, 0);
  for (bool alive = true; alive;) {
    alive = false;
    for (RequestId& id : clients) {
      if ((id == 0 || h.records_[id].ended) && static_cast<int>(next) <= load.num_requests) {
        id = next++;
        Request request;
        request.sampling.ignore_eos = !load.eos;
        request.sampling.seed = id * 100;
        const int prompt = between(load.min_prompt, load.max_prompt);
        EXPECT_TRUE(h.Add(id, RandomPrompt(prompt, static_cast<int>(id)),
                          between(load.min_answer, load.max_answer), request)
                        .ok());
      }
      alive = alive || !h.records_[id].ended;
    }
    if (!alive) break;
    h.Step();
    seconds += SecondsOf(h.last_);
    rows += h.last_.num_rows();
    outcome.peak_pages = std::max(outcome.peak_pages, h.scheduler_.Stats().num_used_pages);
    EXPECT_TRUE(h.scheduler_.CheckInvariants().ok()) << h.scheduler_.CheckInvariants();
    if (::testing::Test::HasFailure()) return outcome;
  }
  for (const auto& [id, record] : h.records_) {
    h.ExpectUndisturbed(id);
    outcome.most_preemptions = std::max(outcome.most_preemptions, record.end.num_preemptions);
  }
  const SchedulerStats stats = h.scheduler_.Stats();
  outcome.tokens_per_second = static_cast<double>(stats.generation_tokens) / seconds;
  outcome.recomputed = static_cast<double>(stats.num_recomputed_tokens) / static_cast<double>(rows);
  return outcome;
}

TEST(PageForecastTest, LooksAtEachMomentJustBeforeAnEnd) {
  const auto peak = [](std::vector<PageDemand> demands) { return PeakGrowth(absl::MakeSpan(demands), 16); };
  EXPECT_EQ(peak({}), 0);
  EXPECT_EQ(peak({{2, 2, 30, 2}}), 0);                   // 32 tokens fill the two pages it has
  EXPECT_EQ(peak({{2, 2, 30, 3}}), 1);                   // 33 need a third
  EXPECT_EQ(peak({{2, 2, 32, 16}, {2, 2, 32, 16}}), 2);  // both end together
  EXPECT_EQ(peak({{2, 2, 32, 16}, {2, 2, 32, 32}}), 2);  // then two are free again, of which one is taken
  EXPECT_EQ(peak({{2, 0, 32, 16}, {2, 2, 32, 80}}), 5);  // but for those shared with the other
}

TEST(PageForecastTest, LearnsHowLongAnswersAre) {
  AnswerLengths lengths;
  EXPECT_EQ(lengths.ExpectedRemaining(0, 100), 100);  // below the first guess of 256
  EXPECT_EQ(lengths.ExpectedRemaining(0, 25600), 256);
  for (int i = 0; i < 500; ++i) lengths.Observe(50, 1000);
  EXPECT_NEAR(lengths.ExpectedRemaining(0, 1000), 50, 5);
  EXPECT_NEAR(lengths.ExpectedRemaining(500, 1000), 25, 5);
  EXPECT_EQ(lengths.ExpectedRemaining(999, 1000), 1);  // never none
}

class PreemptionTest : public ::testing::TestWithParam<Load> {};

TEST_P(PreemptionTest, HalfThePagesGiveFourFifthsOfTheThroughput) {
  const Outcome alone = Play(GetParam(), 100000 / GetParam().page_size, 4);
  EXPECT_EQ(alone.most_preemptions, 0);
  for (int max_preemptions : {0, 1, 4}) {
    const Outcome half = Play(GetParam(), alone.peak_pages / 2, max_preemptions);
    EXPECT_LE(half.most_preemptions, max_preemptions);
    if (max_preemptions == 0) continue;  // the price of never: 61 to 90 %
    EXPECT_GE(half.tokens_per_second, 0.8 * alone.tokens_per_second);
    EXPECT_LE(half.recomputed, 0.05);  // 9 to 23 % where only the next page is looked at
  }
}

INSTANTIATE_TEST_SUITE_P(Loads, PreemptionTest, ::testing::ValuesIn(kLoads),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sessa
