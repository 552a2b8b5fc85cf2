// Plans as messages: what is encoded comes back, and what no model could run is refused, at each limit's
// edge.
#include "engine/step_message.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sessa {
namespace {

using testing::HasSubstr;

// Two ranks, so two classes of pages: the first 64 tokens are of pages 0 to 7, the next of 8 to 15.
constexpr StepBounds kBounds = {
    100, 20, 200, {.page_size = 32, .num_pages = 16, .num_ranks = 2, .num_slots = 4}};

StepPlan Plan() {
  StepPlan plan;
  PlanSequence prompt, decode;
  prompt.num_rows = 5, prompt.start = 62, prompt.pages = {0, 7, 8}, prompt.slot = 1, prompt.state_from = 3;
  prompt.snapshots = {{1, 2}, {4, 0}};
  decode.first_row = 5, decode.num_rows = 1, decode.start = 0, decode.pages = {3}, decode.slot = 0;
  plan.sequences = {prompt, decode};
  plan.token_ids = {0, 99, 1, 2, 3, 4};
  plan.positions = {62, 63, 64, 65, 66, 0};
  return plan;
}

std::vector<int32_t> Words(const std::function<void(StepPlan*, std::vector<int32_t>*)>& change) {
  StepPlan plan = Plan();
  std::vector<int32_t> logit_rows = {4, 5}, words;
  change(&plan, &logit_rows);
  EncodeStep(plan, logit_rows, &words);
  return words;
}

absl::Status Decoded(const std::vector<int32_t>& words, const StepBounds& bounds = kBounds) {
  StepMessage message;
  return DecodeStep(words, bounds, &message);
}

TEST(StepMessageTest, ComesBack) {
  const StepPlan plan = Plan();
  std::vector<int32_t> words;
  EncodeStep(plan, {4, 5}, &words);
  StepMessage message;
  message.plan.sequences.resize(7);  // what a message before it left
  message.logit_rows = {1, 2, 3};
  ASSERT_TRUE(DecodeStep(words, kBounds, &message).ok()) << DecodeStep(words, kBounds, &message);
  EXPECT_EQ(message.plan.token_ids, plan.token_ids);
  EXPECT_EQ(message.plan.positions, plan.positions);
  EXPECT_EQ(message.logit_rows, (std::vector<int32_t>{4, 5}));
  ASSERT_EQ(message.plan.sequences.size(), 2u);
  for (int i : {0, 1}) {
    const PlanSequence &a = message.plan.sequences[i], &b = plan.sequences[i];
    EXPECT_EQ(a.first_row, b.first_row);
    EXPECT_EQ(a.num_rows, b.num_rows);
    EXPECT_EQ(a.start, b.start);
    EXPECT_EQ(a.pages, b.pages);
    EXPECT_EQ(a.slot, b.slot);
    EXPECT_EQ(a.state_from, b.state_from);
    ASSERT_EQ(a.snapshots.size(), b.snapshots.size());
    for (size_t s = 0; s < a.snapshots.size(); ++s) {
      EXPECT_EQ(a.snapshots[s].row, b.snapshots[s].row);
      EXPECT_EQ(a.snapshots[s].slot, b.snapshots[s].slot);
    }
  }
}

TEST(StepMessageTest, EachLimitAtItsEdge) {
  struct Case {
    const char* what;  // of the refusal; null: it is fine
    std::function<void(StepPlan*, std::vector<int32_t>*)> change;
  };
  using P = StepPlan*;
  using L = std::vector<int32_t>*;
  const Case cases[] = {
      {nullptr, [](P p, L) { p->token_ids[0] = 99; }},
      {"token 100", [](P p, L) { p->token_ids[0] = 100; }},
      {"token -1", [](P p, L) { p->token_ids[5] = -1; }},
      {"rows that are no sequence's", [](P p, L) { p->token_ids.push_back(1); }},
      {"a sequence of 2 rows", [](P p, L) { p->sequences[1].num_rows = 2; }},
      {"a sequence of 0 rows", [](P p, L) { p->sequences[0].num_rows = 0; }},
      {"0 sequences", [](P p, L) { p->sequences.clear(); }},
      {"starts at -1", [](P p, L) { p->sequences[0].start = -1; }},
      {"starts at 196", [](P p, L) { p->sequences[0].start = 196; }},
      {"pages are missing", [](P p, L) { p->sequences[0].start = 195; }},  // within the sequence's limit
      {"pages are missing", [](P p, L) { p->sequences[0].pages.pop_back(); }},
      {nullptr, [](P p, L) { p->sequences[0].pages.push_back(15); }},  // reserved
      {"page 8 cannot be the sequence's number 1", [](P p, L) { p->sequences[0].pages[1] = 8; }},
      {"page 7 cannot be the sequence's number 2", [](P p, L) { p->sequences[0].pages[2] = 7; }},
      {"page 16 cannot", [](P p, L) { p->sequences[0].pages[2] = 16; }},
      {"page -1 cannot", [](P p, L) { p->sequences[0].pages[0] = -1; }},
      {"slot 4", [](P p, L) { p->sequences[0].slot = 4; }},
      {"slot -1", [](P p, L) { p->sequences[0].slot = -1; }},
      {"state from slot 4", [](P p, L) { p->sequences[0].state_from = 4; }},
      {"state from slot -1", [](P p, L) { p->sequences[0].state_from = -1; }},
      {nullptr, [](P p, L) { p->sequences[1].state_from = -1; }},  // it starts at 0
      {"a snapshot of row 5", [](P p, L) { p->sequences[0].snapshots[1].row = 5; }},
      {"a snapshot of row 0", [](P p, L) { p->sequences[0].snapshots[1].row = 0; }},
      {"in slot 4", [](P p, L) { p->sequences[0].snapshots[0].slot = 4; }},
      {"in slot -1", [](P p, L) { p->sequences[0].snapshots[0].slot = -1; }},
      {nullptr, [](P, L l) { l->clear(); }},
      {nullptr, [](P, L l) { *l = {0, 1, 2, 3, 4, 5}; }},
      {"logits of row 6",
       [](P, L l) {
         *l = {4, 6};
       }},
      {"logits of row -1", [](P, L l) { *l = {-1}; }},
      {"logits of row 4",
       [](P, L l) {
         *l = {5, 4};
       }},
      {"7 logit rows", [](P, L l) { *l = {0, 1, 2, 3, 4, 5, 5}; }},
  };
  for (const Case& c : cases) {
    const absl::Status status = Decoded(Words(c.change));
    if (c.what == nullptr) {
      EXPECT_TRUE(status.ok()) << status;
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.what;
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.what));
    }
  }
}

TEST(StepMessageTest, RowsOfAStep) {
  StepBounds bounds = kBounds;
  const std::vector<int32_t> words = Words([](StepPlan*, std::vector<int32_t>*) {});
  bounds.max_rows = 6;
  EXPECT_TRUE(Decoded(words, bounds).ok());
  bounds.max_rows = 5;
  EXPECT_THAT(std::string(Decoded(words, bounds).message()), HasSubstr("6 rows"));
}

// A model without recurrent state has no slots, and a plan for one names none.
TEST(StepMessageTest, WithoutSlots) {
  StepBounds bounds = kBounds;
  bounds.state.num_slots = 0;
  const auto none = [](StepPlan* p, std::vector<int32_t>*) {
    for (PlanSequence& s : p->sequences) s.slot = s.state_from = -1, s.snapshots.clear();
  };
  EXPECT_TRUE(Decoded(Words(none), bounds).ok());
  EXPECT_FALSE(
      Decoded(Words([&](StepPlan* p, std::vector<int32_t>* l) { none(p, l), p->sequences[1].slot = 0; }),
              bounds)
          .ok());
  EXPECT_FALSE(Decoded(Words([&](StepPlan* p, std::vector<int32_t>* l) {
                         none(p, l), p->sequences[0].state_from = 0;
                       }),
                       bounds)
                   .ok());
}

TEST(StepMessageTest, CutAnywhereOrLonger) {
  std::vector<int32_t> words = Words([](StepPlan*, std::vector<int32_t>*) {});
  for (size_t n = 0; n < words.size(); ++n)
    EXPECT_FALSE(Decoded({words.begin(), words.begin() + n}).ok()) << n;
  words.push_back(0);
  EXPECT_THAT(std::string(Decoded(words).message()), HasSubstr("its length is not what it says"));
  words.pop_back();
  for (const int32_t huge : {1 << 30, -1, INT32_MIN, INT32_MAX}) {
    for (size_t i = 0; i < words.size(); ++i) {
      std::vector<int32_t> bad = words;
      bad[i] = huge;
      EXPECT_EQ(Decoded(bad).ok(), bad == words) << "word " << i;
    }
  }
}

}  // namespace
}  // namespace sessa
