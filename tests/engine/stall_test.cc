// What a long prompt does to running streams, and the other way round, on a clock that a synthetic cost
// moves: the worst step, the steps to a short prompt's first token, who makes progress, and the throughput
// beside that of chunks by tokens alone.
#include <algorithm>
#include <map>
#include <memory>
#include <ostream>
#include <utility>
#include <variant>
#include <vector>

#include "engine/scheduler.h"
#include "gtest/gtest.h"
#include "tests/engine/run_warm_up.h"

namespace sessa {
namespace {

struct Cost {  // microseconds
  double step, row, read, pair;
  absl::Duration Of(const StepFeatures& f) const {
    return absl::Microseconds(step + row * f.rows + read * f.reads + pair * f.pairs);
  }
};
// As measured on two cores: D 1024 with 24 layers, and D 512 with 2.
constexpr Cost kShapeA = {14000, 1450, 4.7, 1.1}, kSmall = {800, 40, 0.2, 0.05};

class StallTest : public testing::Test {
 protected:
  void Make(const Cost& cost, absl::Duration target, int max_step_tokens = 512) {
    cost_ = cost;
    const StateSize state = {.num_pages = 4000};
    SchedulerOptions o;
    o.max_num_seqs = 256;
    o.max_model_len = 70000;
    o.max_step_tokens = max_step_tokens;
    o.target_step_time = target;
    o.enable_prefix_caching = false;
    scheduler_ = std::make_unique<Scheduler>(o, state, std::vector<int32_t>{});
    const auto run = [&](const StepPlan& plan) {
      return absl::StatusOr<absl::Duration>(cost.Of(FeaturesOf(plan)));
    };
    ASSERT_TRUE(RunWarmUp(o, state, run, scheduler_->mutable_cost_model()).ok());
  }

  RequestId Add(int prompt, int max_tokens) {
    Request request;
    request.prompt.assign(prompt, 1);
    request.sampling.max_tokens = max_tokens;
    EXPECT_TRUE(scheduler_->Add(++last_id_, std::move(request), now_).ok());
    return last_id_;
  }
  void AddStreams(int count, int max_tokens = 60000) {
    for (int i = 0; i < count; ++i) streams_.push_back(Add(250 + 13 * i, max_tokens));
    while (num_tokens_[streams_.back()] == 0) Step();
  }

  // Notes in features_ and took_ what the step was.
  void Step() {
    const StepPlan& plan = scheduler_->Schedule(now_);
    ASSERT_GT(plan.num_rows(), 0);
    features_ = FeaturesOf(plan);
    took_ = cost_.Of(features_);
    rows_.clear();
    decodes_ = {};
    std::vector<SequenceResult> results(plan.sequences.size());
    for (size_t i = 0; i < results.size(); ++i) {
      const PlanSequence& s = plan.sequences[i];
      if (s.sample) results[i].tokens = {{1, {}}};
      rows_[scheduler_->FindSequence(s.sequence_id)->request_id] += s.num_rows;
      if (s.start >= s.prompt_size) decodes_.AddDecode(s.start);
    }
    scheduler_->ObserveStep(plan, took_);
    now_ += took_;
    std::vector<SchedulerEvent> events;
    scheduler_->Commit(plan, results, now_, &events);
    for (const SchedulerEvent& event : events) {
      if (std::holds_alternative<TokenUpdate>(event.what)) ++num_tokens_[event.request_id];
    }
  }
  bool Done(RequestId prompt) { return num_tokens_[prompt] > 0; }

  Cost cost_ = {};
  std::unique_ptr<Scheduler> scheduler_;
  absl::Time now_ = absl::UnixEpoch();
  RequestId last_id_ = 0;
  std::vector<RequestId> streams_;
  std::map<RequestId, int> num_tokens_, rows_;  // rows_: of the last step
  StepFeatures features_, decodes_;
  absl::Duration took_;
};

struct Mix {
  const char* name;
  Cost cost;
  int prompt;
  absl::Duration target;
};
void PrintTo(const Mix& mix, std::ostream* os) { *os << mix.name; }
class MixTest : public StallTest, public testing::WithParamInterface<Mix> {};

TEST_P(MixTest, BoundedStallsShortPromptsAndThroughput) {
  const Mix& mix = GetParam();
  Make(mix.cost, mix.target);
  AddStreams(16);
  const absl::Time begin = now_;
  const RequestId prompt = Add(mix.prompt, 1);
  RequestId shorter = 0;
  int since = 100000, steps = 0;
  absl::Duration worst;
  for (; !Done(prompt); ++steps) {
    ASSERT_LT(steps, 100000);
    if (steps % 25 == 2) shorter = Add(100, 1), since = steps;
    Step();
    worst = std::max(worst, took_);
    for (RequestId stream : streams_) ASSERT_EQ(rows_[stream], 1);  // in every step
    ASSERT_TRUE(steps < since + 3 || Done(shorter)) << "step " << steps;
  }
  const absl::Duration bounded = now_ - begin;
  EXPECT_LE(worst, 1.1 * PrefillBudget::kStretch * mix.target);  // the cost model errs by a little
  EXPECT_LE(bounded / steps, 1.02 * mix.target);                 // and the mean of all is the target

  // The same work, with chunks by tokens.
  const int decoded = num_tokens_[streams_[0]], shorts = (steps + 22) / 25;
  num_tokens_.clear();
  streams_.clear();
  Make(mix.cost, absl::InfiniteDuration());
  AddStreams(16, decoded);
  const absl::Time begin_unbounded = now_;
  Add(mix.prompt, 1);
  for (int i = 0; i < shorts; ++i) Add(100, 1);
  while (scheduler_->has_work()) Step();
  EXPECT_GE(absl::FDivDuration(now_ - begin_unbounded, bounded), 0.95);
}

INSTANTIATE_TEST_SUITE_P(Mixes, MixTest,
                         testing::Values(Mix{"8K, D 1024, 24 layers", kShapeA, 8192, absl::Milliseconds(200)},
                                         Mix{"32K, D 512, 2 layers", kSmall, 32768, absl::Milliseconds(100)},
                                         Mix{"64K, D 512, 2 layers", kSmall, 65536,
                                             absl::Milliseconds(100)}));

// Nobody streams: the first prompt may take three times the target, and max_step_tokens still bounds it. Who
// joins it has the target alone, and a stream brings the target back.
TEST_F(StallTest, APromptAlone) {
  const absl::Duration target = absl::Milliseconds(200);
  Make(kShapeA, target, 300);
  const RequestId prompt = Add(2000, 1);
  Step();
  EXPECT_EQ(rows_[prompt], 300);
  Make(kShapeA, target, 1024);
  const RequestId whole = Add(2000, 1);
  Step();
  EXPECT_GT(took_, 0.8 * PrefillBudget::kAlone * target);
  EXPECT_LE(took_, 1.05 * PrefillBudget::kAlone * target);
  const RequestId shorter = Add(100, 1);
  Step();
  EXPECT_TRUE(Done(shorter));
  EXPECT_LE(took_, 1.05 * target);
  EXPECT_GT(rows_[whole], 0);
  AddStreams(1);
  const absl::Duration limit = 1.05 * PrefillBudget::kStretch * target;
  for (Add(2000, 1); !Done(whole); Step()) {
    if (decodes_.rows > 0) {
      EXPECT_LE(took_, limit);
    }
  }
}

// Streams whose own step is longer than the target: it cannot be held, and prompts have their quarter.
TEST_F(StallTest, ATargetBelowTheDecodesOwnTime) {
  Make(kShapeA, absl::Milliseconds(20));
  AddStreams(48);
  const RequestId prompt = Add(2000, 1);
  absl::Duration total, decode, alone;
  while (!Done(prompt)) {
    Step();
    alone = cost_.Of(decodes_);
    EXPECT_LE(took_, 1.05 * PrefillBudget::kStretch * PrefillBudget::kDecodeLimit * alone);
    total += took_;
    decode += alone;
  }
  EXPECT_NEAR(absl::FDivDuration(decode, total), 0.75, 0.03);
}

// At 60K tokens of the large model one row takes longer than the target; what then counts is that it ends.
TEST_F(StallTest, APromptSoDeepThatOneRowIsTooMuch) {
  Make({14000, 1450, 47, 11}, absl::Milliseconds(100));
  AddStreams(4);
  const RequestId prompt = Add(10000, 1);
  for (int steps = 0; !Done(prompt); ++steps) {
    ASSERT_LT(steps, 100000);
    Step();
    StepFeatures one = decodes_;
    one.AddPrefill(10000, 1);
    ASSERT_LE(took_, 1.05 * std::max(1.5 * absl::Milliseconds(100), 2 * cost_.Of(one)));
  }
}

// Short prompts that never cease, more than there is time for: the long one has its turns, each after a step
// that pays for the one before.
TEST_F(StallTest, ALongPromptIsNotStarved) {
  Make(kShapeA, absl::Milliseconds(200));
  AddStreams(8);
  const absl::Time begin = now_;
  const RequestId prompt = Add(4000, 1);
  std::vector<RequestId> shorts;
  int steps = 0, without = 0, longest = 0;
  for (; !Done(prompt); ++steps) {
    ASSERT_LT(steps, 10000);
    shorts.push_back(Add(100, 1));
    Step();
    if (now_ < begin + absl::Seconds(4)) continue;  // till then the short ones are before it by age too
    without = rows_[prompt] > 0 ? 0 : without + 1;
    longest = std::max(longest, without);
  }
  EXPECT_LE(longest, Scheduler::kMaxOvertakes + 1);
  EXPECT_GT(std::count_if(shorts.begin(), shorts.end(), [&](RequestId id) { return Done(id); }), steps / 4);
}

// Two long prompts, one of which waits: a short one passes both.
TEST_F(StallTest, AShortPromptPassesLongOnesThatHaveWaited) {
  Make(kShapeA, absl::Milliseconds(200));
  AddStreams(8);
  Add(8000, 1);
  Add(8000, 1);
  const absl::Time later = now_ + absl::Seconds(15);
  while (now_ < later) Step();  // by age both are before it
  const RequestId shorter = Add(100, 1);
  for (int i = 0; i < 4; ++i) Step();
  EXPECT_TRUE(Done(shorter));
}

}  // namespace
}  // namespace sessa
