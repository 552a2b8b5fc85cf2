// Prefix caching of models with recurrent state: a hit gives what none gives, wherever it starts, and it
// comes where it should. The fake model draws each token from what the slots hold, so that a state of another
// prefix, or of another token, is a wrong answer in ExpectUndisturbed.
#include <algorithm>

#include "tests/engine/scheduler_harness.h"

namespace sessa {
namespace {

constexpr int kPage = 16;

// `shared` tokens of one text, then `tail` of another.
std::vector<int32_t> Prompt(int shared, int tail = 0, int seed = 0) {
  std::vector<int32_t> prompt = RandomPrompt(shared);
  const std::vector<int32_t> rest = RandomPrompt(tail, 1000 + seed);
  prompt.insert(prompt.end(), rest.begin(), rest.end());
  return prompt;
}

class SnapshotTest : public ::testing::Test {
 protected:
  void Start(StateSize state, SchedulerOptions options = {}) {
    state.page_size = kPage;
    if (state.num_slots == 0) state.num_slots = 32;
    h_ = std::make_unique<SchedulerHarness>(state, options);
  }
  RequestId Add(std::vector<int32_t> prompt, int max_tokens, Request request = NoEos()) {
    EXPECT_TRUE(h_->Add(++last_, std::move(prompt), max_tokens, std::move(request)).ok());
    return last_;
  }
  // Runs everything, checking after each step; then every answer.
  void Run() {
    while (h_->scheduler_.has_work() && !HasFailure()) Step();
    for (const auto& [id, record] : h_->records_)
      if (!disturbed_.contains(id)) h_->ExpectUndisturbed(id);
    EXPECT_EQ(Stats().num_used_slots, 0);
  }
  void Step() {
    h_->Step();
    const absl::Status intact = h_->scheduler_.CheckInvariants();
    ASSERT_TRUE(intact.ok()) << intact;
  }
  // The tokens of its prompt that a request found, once it has run alone.
  int Cached(std::vector<int32_t> prompt, int max_tokens = 1) {
    const RequestId id = Add(std::move(prompt), max_tokens);
    Run();
    return h_->records_[id].prompt.num_cached_tokens;
  }
  SchedulerStats Stats() const { return h_->scheduler_.Stats(); }
  const PlanSequence* Planned(RequestId id, int choice = 0) const {
    for (const PlanSequence& s : h_->last_.sequences) {
      const Sequence* sequence = h_->scheduler_.FindSequence(s.sequence_id);
      if (sequence != nullptr && sequence->request_id == id && sequence->choice == choice) return &s;
    }
    return nullptr;
  }

  std::unique_ptr<SchedulerHarness> h_;
  RequestId last_ = 0;
  std::set<RequestId> disturbed_;
};

// Twice the same prompt, then the same with another tail: every length about two page edges, with chunks cut
// anywhere and with slots for one snapshot or for many.
TEST_F(SnapshotTest, AHitIsNoHitAtEveryLengthAndChunk) {
  for (int chunk : {2, 3, 7, 15, 16, 17, 33, 64}) {
    for (int num_slots : {1, 2, 32}) {
      for (int length = 1; length <= 2 * kPage + 2; ++length) {
        SCOPED_TRACE(testing::Message() << length << " tokens in chunks of " << chunk << ", " << num_slots);
        Start({.num_slots = num_slots}, {.max_num_seqs = 1, .max_step_tokens = chunk});
        const int reusable = (length - 1) / kPage * kPage;
        const int answer = num_slots > 2 ? 20 : 1;  // whose snapshot would take the only other slot
        EXPECT_EQ(Cached(Prompt(length), answer), 0);
        // One slot is the sequence's own: a snapshot of its prompt cannot be.
        EXPECT_EQ(Cached(Prompt(length), answer), num_slots == 1 ? 0 : reusable);
        for (int tail : {1, kPage, kPage + 1}) Cached(Prompt(length, tail), 3);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(SnapshotTest, TheHitIsAsDeepAsTheSnapshotNotAsThePages) {
  Start({});
  EXPECT_EQ(Cached(Prompt(4 * kPage), 20), 0);  // snapshots after 48 tokens, and after 80 of 83 in the end
  EXPECT_EQ(Cached(Prompt(kPage)), 0);
  EXPECT_EQ(Cached(Prompt(kPage + 1)), 0);  // the page is there, its last state is not: taken now
  EXPECT_EQ(Cached(Prompt(kPage + 1)), kPage);
  EXPECT_EQ(Cached(Prompt(2 * kPage)), kPage);
  EXPECT_EQ(Cached(Prompt(2 * kPage + 1)), kPage);
  EXPECT_EQ(Cached(Prompt(2 * kPage + 1)), 2 * kPage);
  EXPECT_EQ(Cached(Prompt(4 * kPage)), 3 * kPage);
  const SchedulerStats stats = Stats();
  EXPECT_EQ(stats.prefix_cache_hits, (1 + 1 + 1 + 2 + 3) * kPage);  // what was reused, not what was indexed
  EXPECT_EQ(stats.prefix_cache_queries, (4 + 1 + 1 + 1 + 2 + 2 + 2 + 4) * kPage + 4);
}

TEST_F(SnapshotTest, TheNextTurnFindsTheAnswer) {
  Start({});
  const RequestId first = Add(Prompt(40), 100);
  while (h_->scheduler_.has_work()) {
    Step();
    EXPECT_LE(Stats().num_snapshots, 2);  // of the prompt, and one that rolls
  }
  Run();
  std::vector<int32_t> turn = Prompt(40);
  const auto& answer = h_->records_[first].tokens[0];
  turn.insert(turn.end(), answer.begin(), answer.end());  // of 140 tokens 139 were computed
  turn.push_back(1);
  EXPECT_EQ(Cached(turn), 128);
  EXPECT_EQ(Cached(Prompt(40, 30)), 32);  // asked again, another way
}

TEST_F(SnapshotTest, ASnapshotWherePromptsBranch) {
  Start({});
  EXPECT_EQ(Cached(Prompt(5 * kPage + 3, 40, 1)), 0);
  EXPECT_EQ(Cached(Prompt(5 * kPage + 3, 40, 2)), 0);          // shares 5 pages; the state there is taken now
  EXPECT_EQ(Cached(Prompt(5 * kPage + 3, 40, 3)), 5 * kPage);  // for whoever comes next
  EXPECT_EQ(Cached(Prompt(5 * kPage + 3, 40, 2)), 7 * kPage);
}

TEST_F(SnapshotTest, ChoicesStartFromThePromptsSnapshot) {
  for (int length : {kPage, kPage + 1, 50}) {
    Start({});
    const RequestId id = Add(Prompt(length), 40, NoEos(4));
    Step();
    EXPECT_EQ(h_->last_.num_rows(), length);  // once
    Step();
    const int rest = length - (length - 1) / kPage * kPage;
    EXPECT_EQ(h_->last_.num_rows(), 1 + 3 * rest);
    if (length > kPage) {  // all of one snapshot, and each into a slot of its own
      EXPECT_EQ(Planned(id, 1)->state_from, Planned(id, 3)->state_from);
      EXPECT_NE(Planned(id, 1)->slot, Planned(id, 3)->slot);
    } else {
      EXPECT_EQ(Planned(id, 1)->state_from, -1);
    }
    Run();
  }
}

TEST_F(SnapshotTest, TwoWhoComputeTheSamePrefixKeepOneSnapshot) {
  Start({});
  const RequestId a = Add(Prompt(40), 5), b = Add(Prompt(40), 5);
  Step();
  EXPECT_EQ(Planned(a)->snapshots.size(), 1u);
  EXPECT_EQ(Planned(b)->snapshots.size(), 1u);
  EXPECT_EQ(Stats().num_snapshots, 1);
  Run();
  EXPECT_EQ(Cached(Prompt(40)), 32);
}

// Four sequences start from one snapshot at once, where no slot is left beside theirs; it is nobody's victim
// before they have.
TEST_F(SnapshotTest, ASnapshotStaysUntilWhoStartsFromItHas) {
  Start({.num_slots = 4}, {.max_num_seqs = 4, .max_step_tokens = 6});
  EXPECT_EQ(Cached(Prompt(33)), 0);
  for (int i = 0; i < 4; ++i) Add(Prompt(33, 10, i), 8);
  Run();
  for (RequestId id = 2; id <= 4; ++id) EXPECT_EQ(h_->records_[id].prompt.num_cached_tokens, 32) << id;
}

TEST_F(SnapshotTest, TheOnlySlotIsTakenOverFromTheSnapshotInIt) {
  Start({.num_slots = 2}, {.max_num_seqs = 2});
  EXPECT_EQ(Cached(Prompt(33)), 0);
  const RequestId other = Add(Prompt(0, 5), 10);  // takes no snapshot
  Step();
  const RequestId id = Add(Prompt(33, 5), 5);
  Step();
  EXPECT_EQ(Planned(id)->start, 32);
  EXPECT_EQ(Planned(id)->state_from, Planned(id)->slot);
  EXPECT_NE(Planned(id)->slot, Planned(other)->slot);
  Run();
}

// The chain of pages stays when its snapshots are evicted: found by the index, computed again.
TEST_F(SnapshotTest, EvictedSnapshotsWhosePagesStay) {
  Start({.num_slots = 2}, {.max_num_seqs = 1});
  EXPECT_EQ(Cached(Prompt(40)), 0);
  EXPECT_EQ(Cached(Prompt(40)), 32);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Cached(Prompt(0, 40, i)), 0);
  const int indexed = h_->scheduler_.mutable_pool_for_testing()->num_indexed_pages();
  EXPECT_EQ(Cached(Prompt(40)), 0);
  EXPECT_EQ(h_->scheduler_.mutable_pool_for_testing()->num_indexed_pages(), indexed);  // the same pages again
  EXPECT_EQ(Cached(Prompt(40)), 32);
}

TEST_F(SnapshotTest, AnEvictedPageGivesItsSnapshotBack) {
  Start({.num_pages = 4}, {.max_model_len = 60});
  EXPECT_EQ(Cached(Prompt(40)), 0);
  EXPECT_EQ(Stats().num_snapshots, 1);
  EXPECT_EQ(Cached(Prompt(0, 55)), 0);  // takes all four pages
  EXPECT_EQ(Stats().num_snapshots, 1);  // its own
  EXPECT_EQ(Cached(Prompt(40)), 0);
}

TEST_F(SnapshotTest, NothingIsSharedBetweenTenants) {
  Start({});
  EXPECT_EQ(Cached(Prompt(40)), 0);
  Request other = NoEos();
  other.tenant = "other";
  const RequestId id = Add(Prompt(40), 3, other);
  Run();
  EXPECT_EQ(h_->records_[id].prompt.num_cached_tokens, 0);
}

TEST_F(SnapshotTest, WithoutCachingThereAreNone) {
  Start({}, {.enable_prefix_caching = false});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Cached(Prompt(40), 40), 0);
  EXPECT_EQ(Stats().num_snapshots, 0);
}

TEST_F(SnapshotTest, ThePreemptedStartFromWhatIsLeft) {
  for (int num_slots : {3, 16}) {
    Start({.num_pages = 12, .num_slots = num_slots}, {.max_num_seqs = 3, .max_model_len = 150});
    for (int i = 0; i < 60; ++i) {  // answers that end early, so that too many start
      const RequestId id = Add(Prompt(0, 3, i), 100);
      disturbed_.insert(id);
      Step();
      h_->scheduler_.StopChoice(id, 0, h_->now_, &h_->events_);
      Run();
    }
    for (int i = 0; i < 6; ++i) Add(Prompt(17, i + 1, i), 80);
    Run();
    EXPECT_GT(Stats().num_preemptions, 0);
  }
}

TEST_F(SnapshotTest, CancelledAmidAPromptAndByAFault) {
  Start({.num_slots = 4}, {.max_num_seqs = 3, .max_step_tokens = 20});
  EXPECT_EQ(Cached(Prompt(33)), 0);
  const RequestId a = Add(Prompt(33, 60, 1), 5), b = Add(Prompt(33, 40, 2), 5);
  Step();
  disturbed_.insert({a, b});
  h_->scheduler_.Cancel(a, h_->now_, &h_->events_);
  const StepPlan& plan = h_->scheduler_.Schedule(h_->now_);
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].snapshots.size(), 1u);  // is written, and never anybody's
  h_->scheduler_.AbortAll(absl::UnavailableError("fault"), h_->now_, &h_->events_);
  h_->Collect();
  ASSERT_TRUE(h_->scheduler_.CheckInvariants().ok()) << h_->scheduler_.CheckInvariants();
  EXPECT_EQ(Stats().num_used_slots, 0);
  EXPECT_EQ(Cached(Prompt(33, 60, 1)), 32);
}

// An answer's newest snapshot is not overwritten by its next one in the very step in which another starts
// from it.
TEST_F(SnapshotTest, ARollingSnapshotThatIsNeededStays) {
  Start({});
  const RequestId a = Add(Prompt(20), 100);
  while (h_->records_[a].tokens[0].size() < 43) Step();  // 62 tokens of state; a snapshot after 48
  std::vector<int32_t> turn = Prompt(20);
  turn.insert(turn.end(), h_->records_[a].tokens[0].begin(), h_->records_[a].tokens[0].begin() + 30);
  turn.push_back(1);
  Step();
  const RequestId b = Add(turn, 5);
  Step();
  ASSERT_EQ(Planned(a)->snapshots.size(), 1u);
  ASSERT_EQ(Planned(b)->start, 48);
  EXPECT_NE(Planned(a)->snapshots[0].slot, Planned(b)->state_from);
  Run();
}

TEST_F(SnapshotTest, NoMoreRunThanThereAreSlots) {
  Start({.num_slots = 2}, {.max_num_seqs = 8});
  for (int i = 0; i < 5; ++i) Add(Prompt(20, 0, i), 10);
  Step();
  EXPECT_EQ(h_->last_.sequences.size(), 2u);
  Run();
}

}  // namespace
}  // namespace sessa
