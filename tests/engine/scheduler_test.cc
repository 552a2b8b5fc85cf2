#include "engine/scheduler.h"

#include "tests/engine/scheduler_harness.h"

namespace sessa {
namespace {

TEST(SchedulerTest, PrefixHitsAroundThePageEdge) {
  SchedulerHarness h({.page_size = 16});
  ASSERT_TRUE(h.Add(1, RandomPrompt(64), 20, NoEos()).ok());
  h.Run();
  RequestId id = 2;
  for (auto [length, cached] :
       {std::pair{15, 0}, {16, 0}, {17, 16}, {31, 16}, {32, 16}, {33, 32}, {64, 48}}) {
    auto prompt = RandomPrompt(64);
    prompt.resize(length);
    ASSERT_TRUE(h.Add(id, prompt, 5, NoEos()).ok());
    h.Run();
    EXPECT_EQ(h.records_[id].prompt.num_cached_tokens, cached) << length;
    h.ExpectUndisturbed(id++);
  }
  // What was generated is found again too: the next turn of a conversation.
  auto turn = RandomPrompt(64);
  const auto& answer = h.records_[1].tokens[0];
  turn.insert(turn.end(), answer.begin(), answer.end());
  ASSERT_TRUE(h.Add(id, turn, 3, NoEos()).ok());
  h.Run();
  EXPECT_EQ(h.records_[id].prompt.num_cached_tokens, 80);
  Request other = NoEos();
  other.tenant = "other";
  ASSERT_TRUE(h.Add(++id, turn, 3, other).ok());
  h.Run();
  EXPECT_EQ(h.records_[id].prompt.num_cached_tokens, 0);  // the salt is the tenant
}

TEST(SchedulerTest, DecodesRunEveryStepBesideALongPrompt) {
  SchedulerHarness h({.page_size = 64, .num_pages = 64}, {.max_step_tokens = 64, .max_model_len = 4000});
  for (RequestId id = 1; id <= 4; ++id) ASSERT_TRUE(h.Add(id, RandomPrompt(10, id), 200, NoEos()).ok());
  h.Step();
  ASSERT_TRUE(h.Add(5, RandomPrompt(1500, 5), 10, NoEos()).ok());
  for (int i = 0; i < 10; ++i) {
    h.Step();
    for (RequestId id = 1; id <= 4; ++id) EXPECT_EQ(h.RowsOf(id), 1);
    EXPECT_EQ(h.RowsOf(5), 60);
  }
  ASSERT_TRUE(h.Add(6, RandomPrompt(30, 6), 10, NoEos())
                  .ok());  // a short one does not wait for the long one, which moves on
  h.Step();
  EXPECT_EQ(h.RowsOf(6), 30);
  EXPECT_EQ(h.RowsOf(5), 30);
}

TEST(SchedulerTest, AgeingLetsALongPromptThrough) {
  SchedulerHarness h({.page_size = 64, .num_pages = 256},
                     {.max_num_seqs = 1, .max_step_tokens = 64, .max_model_len = 8000});
  ASSERT_TRUE(h.Add(1, RandomPrompt(20), 300, NoEos()).ok());
  h.Step();
  ASSERT_TRUE(h.Add(2, RandomPrompt(1000, 2), 1, NoEos()).ok());
  h.now_ += absl::Milliseconds(800);
  ASSERT_TRUE(h.Add(3, RandomPrompt(10, 3), 1, NoEos()).ok());  // within the 1000 tokens' second: overtakes
  h.now_ += absl::Milliseconds(500);
  int overtook = 0;
  for (RequestId id = 4; id < 14; ++id)  // later: some do, being short, then it is the long one's turn
    ASSERT_TRUE(h.Add(id, RandomPrompt(10, id), 1, NoEos()).ok());
  h.Run();
  EXPECT_LT(h.records_[3].end.finished, h.records_[2].end.finished);
  for (RequestId id = 4; id < 14; ++id) overtook += h.records_[id].end.finished < h.records_[2].end.finished;
  EXPECT_EQ(overtook, Scheduler::kMaxOvertakes);
}

TEST(SchedulerTest, TheTenantServedLeastThenPriority) {
  SchedulerHarness h({}, {.max_num_seqs = 1});
  ASSERT_TRUE(h.Add(1, RandomPrompt(20), 50, NoEos()).ok());
  h.Step();
  for (RequestId id = 2; id < 6; ++id) ASSERT_TRUE(h.Add(id, RandomPrompt(10, id), 5, NoEos()).ok());
  Request quiet = NoEos();
  quiet.tenant = "quiet";
  ASSERT_TRUE(h.Add(6, RandomPrompt(500, 6), 5, quiet).ok());
  Request urgent = NoEos();
  urgent.priority = -1000;
  ASSERT_TRUE(h.Add(7, RandomPrompt(100, 7), 5, urgent).ok());
  h.Run();
  // After at most one of the busy tenant's, urgent or not; of its own the urgent one comes first.
  EXPECT_LT(h.records_[6].end.finished, h.records_[3].end.finished);
  for (RequestId id = 2; id < 6; ++id)
    EXPECT_LT(h.records_[7].end.finished, h.records_[id].end.finished) << id;
}

TEST(SchedulerTest, PreemptsTheNewestAndRecomputes) {
  SchedulerHarness h({.page_size = 16, .num_pages = 8});
  for (RequestId id = 11; id <= 110; ++id) {  // answers that leave most of their max_tokens: the next are too
    ASSERT_TRUE(h.Add(id, RandomPrompt(3, id), 100, NoEos()).ok());  // many for the pages
    h.Step();
    h.scheduler_.StopChoice(id, 0, h.now_, &h.events_);
    h.Run();
  }
  for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(h.Add(id, RandomPrompt(17, id), 60, NoEos()).ok());
  h.Run();
  for (RequestId id = 1; id <= 3; ++id) h.ExpectUndisturbed(id);
  EXPECT_EQ(h.records_[1].end.num_preemptions, 0);  // the oldest never gives way
  EXPECT_GT(h.records_[3].end.num_preemptions, 0);
  EXPECT_GT(h.scheduler_.Stats().num_recomputed_tokens, 0);
}

TEST(SchedulerTest, NoPreemptionModeReservesUpFront) {
  SchedulerHarness h({.page_size = 16, .num_pages = 8}, {.max_preemptions = 0});
  for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(h.Add(id, RandomPrompt(17, id), 60, NoEos()).ok());
  h.Run();
  for (RequestId id = 1; id <= 3; ++id) h.ExpectUndisturbed(id);
  EXPECT_EQ(h.scheduler_.Stats().num_preemptions, 0);
}

TEST(SchedulerTest, ChoicesShareThePrompt) {
  SchedulerHarness h({.page_size = 16});
  ASSERT_TRUE(h.Add(1, RandomPrompt(50), 10, NoEos(4)).ok());
  h.Step();
  EXPECT_EQ(h.last_.num_rows(), 50);  // once
  h.Step();
  EXPECT_EQ(h.last_.num_rows(), 1 + 3 * 2);  // then each its own last page
  h.Run();
  h.ExpectUndisturbed(1);
  EXPECT_EQ(h.scheduler_.Stats().prompt_tokens, 50);
}

TEST(SchedulerTest, PromptLogprobsAreWholeWhateverHappens) {
  for (int num_pages : {64, 5}) {
    SchedulerHarness h({.page_size = 16, .num_pages = num_pages}, {.max_step_tokens = 20});
    ASSERT_TRUE(h.Add(1, RandomPrompt(40), 30, NoEos()).ok());
    while (!h.records_[1].prompted) h.Step();
    Request request = NoEos(2);
    request.sampling.prompt_logprobs = true;
    ASSERT_TRUE(h.Add(2, RandomPrompt(40), 10, request).ok());  // the same prompt: would be a hit
    h.Run();
    h.ExpectUndisturbed(2);
    ASSERT_EQ(h.records_[2].prompt.logprobs.size(), 39u);
    for (int i = 0; i < 39; ++i) EXPECT_EQ(h.records_[2].prompt.logprobs[i].logprob, i);
    EXPECT_EQ(h.records_[2].prompt.num_cached_tokens, 0);
  }
}

TEST(SchedulerTest, PromptLogprobsFromAPositionLeaveTheRestCached) {
  SchedulerHarness h({.page_size = 16, .num_pages = 64}, {.max_step_tokens = 20});
  ASSERT_TRUE(h.Add(1, RandomPrompt(40), 1, NoEos()).ok());
  h.Run();
  RequestId id = 2;
  // The row before a token gives its log-probability, so 33 is the first that leaves two pages whole.
  for (const auto& [start, num_cached] :
       {std::pair(16, 0), {17, 16}, {32, 16}, {33, 32}, {39, 32}, {40, 32}}) {
    Request request = NoEos(2);
    request.sampling.prompt_logprobs = true;
    request.sampling.prompt_logprobs_start = start;
    ASSERT_TRUE(h.Add(id, RandomPrompt(40), 3, request).ok());
    h.Run();
    h.ExpectUndisturbed(id);
    const PromptInfo& prompt = h.records_[id++].prompt;
    EXPECT_EQ(prompt.num_cached_tokens, num_cached) << start;
    ASSERT_EQ(prompt.logprobs.size(), 40 - start);
    for (int i = start; i < 40; ++i) EXPECT_EQ(prompt.logprobs[i - start].logprob, i - 1);
  }
}

TEST(SchedulerTest, LimitsAtTheirEdges) {
  SchedulerHarness h({.page_size = 16, .num_pages = 4}, {.max_model_len = 100});
  EXPECT_EQ(h.Add(1, RandomPrompt(100), 1).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(h.Add(1, RandomPrompt(60), 6).code(),
            absl::StatusCode::kResourceExhausted);  // 65 cached tokens need a fifth page
  EXPECT_TRUE(h.Add(1, RandomPrompt(60), 5, NoEos()).ok());
  EXPECT_EQ(h.Add(1, RandomPrompt(6), 5).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(h.Add(2, {}, 5).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(h.Add(2, RandomPrompt(3), 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(h.Add(2, RandomPrompt(3), 5, NoEos()).ok());
  h.Run();
  h.ExpectUndisturbed(1);
  h.ExpectUndisturbed(2);
}

TEST(SchedulerTest, CancelStopChoiceAndDeadlineFreePagesAtOnce) {
  SchedulerHarness h({.page_size = 16});
  Request late = NoEos();
  late.deadline = h.now_ + absl::Milliseconds(35);
  ASSERT_TRUE(h.Add(1, RandomPrompt(40), 100, NoEos()).ok());
  ASSERT_TRUE(h.Add(2, RandomPrompt(40, 2), 100, NoEos(2)).ok());
  ASSERT_TRUE(h.Add(3, RandomPrompt(40, 3), 100, late).ok());
  h.Step();
  h.scheduler_.StopChoice(2, 0, h.now_, &h.events_);
  h.scheduler_.StopChoice(2, 0, h.now_, &h.events_);  // again, and what never was: ignored
  h.scheduler_.StopChoice(2, 7, h.now_, &h.events_);
  h.scheduler_.Cancel(77, h.now_, &h.events_);
  h.Step();
  EXPECT_EQ(h.records_[2].tokens[0].size(), 1u);
  EXPECT_EQ(h.records_[2].tokens[1].size(), 1u);
  h.scheduler_.Cancel(1, h.now_, &h.events_);
  h.scheduler_.StopChoice(2, 1, h.now_, &h.events_);
  h.Collect();
  EXPECT_EQ(h.records_[1].end.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(h.records_[2].ended && h.records_[2].end.status.ok());
  EXPECT_EQ(h.scheduler_.Stats().num_used_pages, 3);
  EXPECT_EQ(h.scheduler_.NextDeadline(), late.deadline);
  h.Step();
  EXPECT_FALSE(h.records_[3].ended);
  h.Step();
  EXPECT_EQ(h.records_[3].end.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(h.scheduler_.Stats().num_used_pages, 0);
}

TEST(SchedulerTest, StoppedWhileItComputesThePromptForOthers) {
  SchedulerHarness h({.page_size = 16}, {.max_step_tokens = 20});
  ASSERT_TRUE(h.Add(1, RandomPrompt(50), 10, NoEos(3)).ok());
  h.Step();
  h.scheduler_.StopChoice(1, 0, h.now_, &h.events_);
  EXPECT_TRUE(h.scheduler_.CheckInvariants().ok()) << h.scheduler_.CheckInvariants();
  h.Run();
  EXPECT_TRUE(h.records_[1].ended && h.records_[1].end.status.ok());
  EXPECT_EQ(h.records_[1].tokens[2].size(), 10u);
}

TEST(SchedulerTest, MissingTokenEndsTheRequestAlone) {
  SchedulerHarness h({.page_size = 16});
  ASSERT_TRUE(h.Add(1, RandomPrompt(5), 3, NoEos()).ok());
  ASSERT_TRUE(h.Add(2, RandomPrompt(6), 3, NoEos()).ok());
  const StepPlan& plan = h.scheduler_.Schedule(h.now_);
  std::vector<SequenceResult> results = h.model_.Execute(plan);
  results[0].tokens[0].token = -1;
  h.scheduler_.Commit(plan, results, h.now_, &h.events_);
  h.Run();
  EXPECT_EQ(h.records_[1].end.status.code(), absl::StatusCode::kInternal);
  h.ExpectUndisturbed(2);
}

TEST(SchedulerTest, AbortAllInTheMiddleOfAStep) {
  SchedulerHarness h({.page_size = 16});
  for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(h.Add(id, RandomPrompt(40, id), 10, NoEos(2)).ok());
  EXPECT_GT(h.scheduler_.Schedule(h.now_).num_rows(), 0);
  h.scheduler_.AbortAll(absl::UnavailableError("gone"), h.now_, &h.events_);
  h.Collect();
  for (RequestId id = 1; id <= 3; ++id)
    EXPECT_EQ(h.records_[id].end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(h.scheduler_.Stats().num_used_pages, 0);
  EXPECT_TRUE(h.scheduler_.CheckInvariants().ok());
  EXPECT_FALSE(h.scheduler_.has_work());
}

// Three choices of a prompt of 130 tokens, which share its two whole tiles, and a stranger.
TEST(SchedulerTest, WhatIsReadTogetherCountsOnce) {
  for (bool shares : {true, false}) {
    SchedulerHarness h({.page_size = 16, .shares_reads = shares});
    ASSERT_TRUE(h.Add(1, RandomPrompt(130), 20, NoEos(3)).ok());
    ASSERT_TRUE(h.Add(2, RandomPrompt(70, 2), 20, NoEos()).ok());
    int64_t saved = 0;
    for (int i = 0; h.scheduler_.has_work(); ++i) {
      ASSERT_LT(i, 100);
      h.Step();
      int64_t reads = 0;
      int decodes = 0;
      for (const PlanSequence& s : h.last_.sequences) {
        reads += s.num_rows == 1 ? s.start + 1 : 0;
        decodes += s.num_rows == 1 && s.start >= 128;
      }
      if (std::ssize(h.last_.sequences) != h.last_.num_rows()) continue;  // a prompt
      EXPECT_EQ(h.last_.num_shared_reads, shares && decodes > 1 ? (decodes - 1) * 128 : 0);
      EXPECT_EQ(FeaturesOf(h.last_).reads, reads - h.last_.num_shared_reads);
      saved += h.last_.num_shared_reads;
    }
    EXPECT_EQ(saved > 0, shares);
    EXPECT_EQ(h.scheduler_.Stats().num_shared_reads, saved);
    h.ExpectUndisturbed(1);
    h.ExpectUndisturbed(2);
  }
}

TEST(SchedulerTest, NoMoreSequencesThanAStepHasTimeFor) {
  const StateSize state = {.page_size = 16, .num_pages = 400};
  SchedulerOptions options = SchedulerHarness::WithDefaults(SchedulerOptions{});
  // The cost model before any step: 2 ms, and 1 ms a row.
  for (auto [target, most] : {std::pair{absl::Milliseconds(22), 21}, {absl::Milliseconds(5), 11}}) {
    options.target_step_time = target;
    Scheduler scheduler(options, state, {FakeModel::kEos});
    FakeModel model(state);
    std::vector<SchedulerEvent> events;
    for (RequestId id = 1; id <= 40; ++id) {
      Request request = NoEos();
      request.prompt = RandomPrompt(3, static_cast<int>(id));
      request.sampling.max_tokens = 100;
      ASSERT_TRUE(scheduler.Add(id, std::move(request), absl::UnixEpoch()).ok());
    }
    int running = 0;
    for (int i = 0; scheduler.has_work(); ++i) {
      const StepPlan& plan = scheduler.Schedule(absl::UnixEpoch());
      running = std::max(running, scheduler.Stats().num_running_sequences);
      scheduler.Commit(plan, model.Execute(plan), absl::UnixEpoch(), &events);
    }
    EXPECT_EQ(running, most) << target;  // at least four times what one alone takes: 12 ms
  }
}

}  // namespace
}  // namespace sessa
