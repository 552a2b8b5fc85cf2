// Several tokens a step: what the Scheduler drafts, and what becomes of it, for drafts right up to each
// place.
#include <algorithm>
#include <ostream>

#include "tests/engine/scheduler_harness.h"

namespace sessa {
namespace {

constexpr int kDrafts = 5;

// n tokens that repeat with a period of 10, and a draft for each next one.
std::vector<int32_t> Periodic(int n) {
  std::vector<int32_t> tokens(n);
  for (int i = 0; i < n; ++i) tokens[i] = i % 10;
  return tokens;
}

// One request whose drafts the test judges itself.
class SpeculationTest : public ::testing::Test {
 protected:
  // Rows cost nothing: every draft with a chance pays.
  SpeculationTest() {
    for (int rows = 1; rows <= 64; ++rows) {
      StepFeatures features;
      features.AddPrefill(rows % 7 * 100, rows);
      h_.scheduler_.mutable_cost_model()->Observe(features, absl::Milliseconds(10));
    }
  }

  // The next plan; its results as if the model had found the first `num_right` drafts of each sequence right,
  // and then `other`.
  const StepPlan& Step(int num_right, int32_t other = 25) {
    const StepPlan& plan = h_.scheduler_.Schedule(h_.now_ += absl::Milliseconds(10));
    std::vector<SequenceResult> results = h_.model_.Execute(plan);
    h_.last_ = plan;
    tokens_before_.clear();
    for (size_t i = 0; i < results.size(); ++i) {
      const PlanSequence& s = plan.sequences[i];
      tokens_before_.push_back(static_cast<int>(s.tokens->size()) - s.num_drafts);
      if (!s.sample) continue;
      results[i].tokens.clear();
      for (int k = 0; k < std::min(num_right, s.num_drafts); ++k)
        results[i].tokens.push_back({(*s.tokens)[tokens_before_.back() + k], {}});
      results[i].tokens.push_back({other, {}});
    }
    h_.scheduler_.ObserveStep(plan, absl::Milliseconds(10));
    h_.scheduler_.Commit(plan, results, h_.now_, &h_.events_);
    h_.Collect();
    EXPECT_TRUE(h_.scheduler_.CheckInvariants().ok()) << h_.scheduler_.CheckInvariants();
    return h_.last_;
  }
  const Sequence& s() { return *h_.scheduler_.FindSequence(1); }

  SchedulerHarness h_{{.page_size = 16}, {.max_step_tokens = 64, .num_speculative_tokens = kDrafts}};
  std::vector<int> tokens_before_;
};

// Whatever the place within a page and whichever draft is the first wrong one, the next step goes on behind
// the last right one, and FakeModel finds the state of each token where the pages say.
TEST_F(SpeculationTest, RightUpToEachPlaceAtEachPlaceOfAPage) {
  for (int length = 40; length < 40 + 17; ++length) {
    for (int right = 0; right <= kDrafts; ++right) {
      SCOPED_TRACE(testing::Message() << length << " tokens, " << right << " right");
      const RequestId id = h_.records_.size() + 1;
      ASSERT_TRUE(h_.Add(id, Periodic(length), 200, NoEos()).ok());
      Step(0, length % 10);
      const auto before = h_.scheduler_.Stats();
      const StepPlan& plan = Step(right);
      ASSERT_EQ(plan.sequences.size(), 1u);
      ASSERT_EQ(plan.sequences[0].num_drafts, kDrafts);
      EXPECT_EQ(plan.num_rows(), 1 + kDrafts);
      for (int k = 0; k <= kDrafts; ++k) EXPECT_EQ(plan.token_ids[k], (length + k) % 10);
      const Sequence& s = *h_.scheduler_.FindSequence(plan.sequences[0].sequence_id);
      EXPECT_EQ(s.num_tokens(), length + 1 + right + 1);
      EXPECT_EQ(s.held.num_computed(), length + 1 + right);
      EXPECT_EQ(s.held.num_registered(), (length + 1 + right) / 16);
      const auto after = h_.scheduler_.Stats();
      EXPECT_EQ(after.draft_tokens - before.draft_tokens, kDrafts);
      EXPECT_EQ(after.accepted_draft_tokens - before.accepted_draft_tokens, right);
      EXPECT_EQ(after.generation_tokens - before.generation_tokens, right + 1);
      EXPECT_EQ(after.num_recomputed_tokens, 0);
      Step(0);
      h_.scheduler_.Cancel(id, h_.now_, &h_.events_);
      h_.Collect();
    }
  }
}

TEST_F(SpeculationTest, NeverBeyondMaxTokens) {
  for (int max_tokens = 1; max_tokens <= 1 + kDrafts + 1; ++max_tokens) {
    const RequestId id = h_.records_.size() + 1;
    ASSERT_TRUE(h_.Add(id, Periodic(40), max_tokens, NoEos()).ok());
    Step(0, 0);
    if (max_tokens > 1) {
      EXPECT_EQ(Step(kDrafts).sequences[0].num_drafts, std::min(kDrafts, max_tokens - 2));
    }
    EXPECT_EQ(h_.records_[id].ended, max_tokens <= 1 + kDrafts + 1) << max_tokens;
    EXPECT_EQ(h_.records_[id].tokens[0].size(), static_cast<size_t>(max_tokens));
    EXPECT_EQ(h_.records_[id].finish[0], FinishReason::kLength);
  }
}

TEST_F(SpeculationTest, AStopTokenAmongTheDraftsIsTheLast) {
  Request request = NoEos();
  request.sampling.stop_token_ids = {3};
  ASSERT_TRUE(h_.Add(1, Periodic(40), 100, request).ok());
  Step(0, 0);
  EXPECT_EQ(Step(kDrafts).sequences[0].num_drafts, kDrafts);
  EXPECT_EQ(h_.records_[1].tokens[0], (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(h_.records_[1].finish[0], FinishReason::kStop);
  EXPECT_EQ(h_.records_[1].end.num_generated_tokens, 4);
  EXPECT_EQ(h_.scheduler_.Stats().accepted_draft_tokens, 2);
}

TEST_F(SpeculationTest, LogitsThatAreNoNumbersBehindARightDraft) {
  ASSERT_TRUE(h_.Add(1, Periodic(40), 100, NoEos()).ok());
  Step(0, 0);
  Step(2, -1);
  EXPECT_EQ(h_.records_[1].tokens[0], (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(h_.records_[1].end.status.code(), absl::StatusCode::kInternal);
}

// Luck decides: after wrong guesses hardly any are made, and when the text repeats itself again they come
// back.
TEST_F(SpeculationTest, OffByItselfAndOnAgain) {
  ASSERT_TRUE(h_.Add(1, Periodic(40), 900, NoEos()).ok());
  Step(0, 0);
  std::vector<int64_t> drafted;
  for (int i = 0; i < 100; ++i) {  // ever again three tokens that stood before, and then another
    drafted.push_back(h_.scheduler_.Stats().draft_tokens);
    Step(0, i % 4 < 3 ? i % 4 : 4 + i / 4);
  }
  EXPECT_GT(drafted[20], kDrafts);
  EXPECT_LE(drafted[99] - drafted[79], 5);  // of five matches
  for (int i = 0; i < 50; ++i) Step(kDrafts, i % 2);
  EXPECT_GT(h_.scheduler_.Stats().draft_tokens, drafted[99] + 50);
}

TEST_F(SpeculationTest, ARequestAsksForMoreOrNone) {
  Request none = NoEos(), more = NoEos();
  none.num_speculative_tokens = 0;
  more.num_speculative_tokens = kDrafts + 3;
  ASSERT_TRUE(h_.Add(1, Periodic(40), 100, none).ok());
  for (int i = 0; i < 4; ++i) Step(0, i);
  EXPECT_EQ(h_.scheduler_.Stats().draft_tokens, 0);
  h_.scheduler_.Cancel(1, h_.now_, &h_.events_);
  h_.Collect();
  ASSERT_TRUE(h_.Add(2, Periodic(40), 100, more).ok());
  Step(0, 0);
  EXPECT_EQ(Step(0).num_rows(), 1 + kDrafts + 3);
}

// Drafts take what others leave: no row of a step that is full, and no page of a pool that is.
TEST(SpeculationBesideOthersTest, OnlyWhatIsLeft) {
  SchedulerHarness h({.page_size = 16, .num_pages = 40},
                     {.max_step_tokens = 19, .num_speculative_tokens = 5});
  Request greedy = NoEos();
  greedy.sampling.temperature = 0;
  ASSERT_TRUE(h.Add(1, Periodic(60), 300, greedy).ok());
  while (h.scheduler_.Stats().draft_tokens == 0) h.Step();
  ASSERT_TRUE(h.Add(2, RandomPrompt(180, 2), 1, NoEos()).ok());
  for (int i = 0; i < 9; ++i) {
    h.Step();
    EXPECT_EQ(h.RowsOf(1), 1);
    EXPECT_EQ(h.RowsOf(2), 18);
  }
  h.Run();
  h.ExpectUndisturbed(1);
  EXPECT_GT(h.scheduler_.Stats().accepted_draft_tokens, 100);
  EXPECT_LT(h.scheduler_.Stats().num_steps, 200);
}

TEST(SpeculationBesideOthersTest, NoneWithRecurrentState) {
  SchedulerHarness h({.page_size = 16, .num_slots = 4}, {.num_speculative_tokens = 5});
  Request greedy = NoEos();
  greedy.sampling.temperature = 0;
  greedy.num_speculative_tokens = 5;
  ASSERT_TRUE(h.Add(1, Periodic(60), 100, greedy).ok());
  h.Run();
  h.ExpectUndisturbed(1);
  EXPECT_EQ(h.scheduler_.Stats().draft_tokens, 0);
}

}  // namespace
}  // namespace sessa
