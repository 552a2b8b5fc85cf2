// The cost model on synthetic steps, and the warm-up that fits it.
#include "engine/cost_model.h"

#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/run_warm_up.h"

namespace sessa {
namespace {

// Another machine than the initial coefficients' one: of another speed and of other proportions.
absl::Duration Truth(const StepFeatures& f) {
  return absl::Microseconds(300 + 40.0 * f.rows + 0.5 * f.reads + 0.02 * f.pairs);
}

StepFeatures Step(int decodes, int context, int start, int rows) {
  StepFeatures f;
  for (int i = 0; i < decodes; ++i) f.AddDecode(context);
  if (rows > 0) f.AddPrefill(start, rows);
  return f;
}

TEST(CostModelTest, FeaturesOfChunks) {
  StepFeatures f = Step(2, 9, 0, 0);
  EXPECT_EQ(f.rows, 2);
  EXPECT_EQ(f.reads, 20);
  f = Step(0, 0, 100, 64);  // blocks of 28 and 36 rows
  EXPECT_EQ(f.rows, 64);
  EXPECT_EQ(f.reads, 100 + 128);
  EXPECT_EQ(f.pairs, 64 * 100 + 64 * 65 / 2);
  EXPECT_EQ(Step(0, 0, 128, 64).reads, 128);
  EXPECT_EQ(Step(0, 0, 0, 64).reads, 0);
}

TEST(CostModelTest, LearnsALineBesideNoiseAndABurst) {
  CostModel model;
  EXPECT_GT(model.Predict(Step(0, 0, 0, 512)), absl::Milliseconds(300));  // pessimistic
  for (int i = 0; i < 300; ++i) {
    const StepFeatures f = Step(i % 7, 100 * (i % 11), 64 * (i % 5), 32 * (i % 13));
    absl::Duration took = Truth(f) * (1 + 0.02 * ((i * 7919) % 11 - 5) / 5);
    if (i == 150) took = absl::Seconds(10);  // somebody else's burst
    model.Observe(f, took);
  }
  for (auto f : {Step(4, 500, 0, 0), Step(0, 0, 128, 256), Step(6, 900, 256, 128)}) {
    EXPECT_NEAR(absl::FDivDuration(model.Predict(f), Truth(f)), 1, 0.1);
  }
}

TEST(CostModelTest, RowsThatFit) {
  CostModel model;
  const StepFeatures decodes = Step(6, 900, 0, 0);
  const int rows = model.MaxPrefillRows(decodes, 1000, 100000, absl::Milliseconds(50));
  EXPECT_GT(rows, 0);
  StepFeatures with = decodes, beyond = decodes;
  with.AddPrefill(1000, rows);
  beyond.AddPrefill(1000, rows + 1);
  EXPECT_LE(model.Predict(with), absl::Milliseconds(50));
  EXPECT_GT(model.Predict(beyond), absl::Milliseconds(50));
  EXPECT_EQ(model.MaxPrefillRows(decodes, 0, 100, absl::ZeroDuration()), 0);
  EXPECT_EQ(model.MaxPrefillRows(decodes, 0, 100, absl::InfiniteDuration()), 100);
}

constexpr StateSize kRoomy = {.num_pages = 1000};

SchedulerOptions Roomy() {
  SchedulerOptions o;
  o.max_num_seqs = 256;
  o.max_step_tokens = 512;
  o.max_model_len = 10000;
  return o;
}

TEST(WarmUpTest, FitsALineWithinAFewSteps) {
  CostModel model;
  int steps = 0;
  const auto run = [&](const StepPlan& plan) {
    return Truth(FeaturesOf(plan)) * (steps++ == 0 ? 30 : 1);  // the first one is cold
  };
  ASSERT_TRUE(RunWarmUp(Roomy(), kRoomy, run, &model).ok());
  EXPECT_GT(steps, 10);
  for (auto f : {Step(1, 500, 0, 0), Step(16, 500, 0, 0), Step(16, 500, 8000, 64), Step(0, 0, 30000, 16)}) {
    EXPECT_NEAR(absl::FDivDuration(model.Predict(f), Truth(f)), 1, 0.1);
  }
}

TEST(WarmUpTest, KeepsToItsTimeOnAnyMachine) {
  for (double slower : {1.0, 10.0, 100.0, 1000.0, 1e5}) {
    CostModel model;
    std::vector<absl::Duration> steps;
    const auto run = [&](const StepPlan& plan) {
      return steps.emplace_back(Truth(FeaturesOf(plan)) * slower);
    };
    ASSERT_TRUE(RunWarmUp(Roomy(), kRoomy, run, &model).ok());
    absl::Duration after_first;
    for (size_t i = 1; i < steps.size(); ++i) after_first += steps[i];
    // What is not known yet may be taken for cheaper than it is: by a step at most.
    EXPECT_LE(after_first, absl::Seconds(2)) << slower;
    EXPECT_GE(steps.size(), 1u);
  }
}

TEST(WarmUpTest, RunsWhatTheOptionsAllow) {
  SchedulerOptions o = Roomy();
  const StateSize state = {.page_size = 16, .num_pages = 2, .num_ranks = 2};
  o.max_model_len = 20;
  o.max_num_seqs = 2;
  o.max_step_tokens = 17;
  CostModel model;
  const auto check = [&](const StepPlan& plan) {
    EXPECT_LE(plan.num_rows(), 17);
    for (const PlanSequence& s : plan.sequences) {
      EXPECT_EQ(s.pages.size(), 1u);
      EXPECT_LT(s.start + s.num_rows, 20);
    }
    return absl::StatusOr<absl::Duration>(absl::Milliseconds(1));
  };
  EXPECT_TRUE(RunWarmUp(o, state, check, &model).ok());
  const auto fail = [](const StepPlan&) {
    return absl::StatusOr<absl::Duration>(absl::InternalError("gone"));
  };
  EXPECT_EQ(RunWarmUp(o, state, fail, &model).message(), "gone");
}

}  // namespace
}  // namespace sessa
