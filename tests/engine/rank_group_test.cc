// A group of ranks that share nothing but sockets: an engine and what ServeRank runs, as in processes of
// their own, here on threads. The bits are those of ranks in one engine, and the loss of any rank ends all.
#include "engine/rank_group.h"

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/group_engine.h"
#include "gmock/gmock.h"
#include "tests/engine/engine_fixture.h"
#include "tests/kernels/socket_pairs.h"

namespace sessa {
namespace {

using testing::HasSubstr;

class RankGroupTest : public EngineFixture {
 protected:
  // The group's engine; the other ranks run until it is destroyed, or lost.
  struct Group {
    explicit Group(int size) : sockets(size), statuses(size) {
      for (int r = 0; r < size; ++r) ranks.push_back(std::make_shared<RankGroup>(r, size, sockets.of(r)));
    }
    ~Group() {
      engine.reset();
      for (std::thread& thread : threads) thread.join();
    }
    void Join() {
      for (std::thread& thread : threads) thread.join();
      threads.clear();
    }
    SocketPairs sockets;
    std::vector<std::shared_ptr<RankGroup>> ranks;
    std::vector<absl::Status> statuses;  // of ServeRank
    std::vector<std::thread> threads;
    std::unique_ptr<Engine> engine;
  };

  std::unique_ptr<Group> Start(EngineOptions options, int size) {
    auto group = std::make_unique<Group>(size);
    options.tensor_parallel_size = size;
    for (int r = 1; r < size; ++r) {
      group->threads.emplace_back([this, options, group = group.get(), r] {
        group->statuses[r] = ServeRank(options, group->ranks[r], config_, *weights_, [] {});
        // As the end of the process: whatever ended this rank ends its connections.
        if (!group->statuses[r].ok()) group->ranks[r]->Lose(group->statuses[r]);
      });
    }
    auto engine = CreateGroupEngine(options, group->ranks[0], config_, *weights_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    if (engine.ok()) group->engine = *std::move(engine);
    return group;
  }

  std::vector<CollectingSink::Result> Answers(Engine* engine) {
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (int i = 0; i < 6; ++i)
      sinks.push_back(Submit(engine, MakeRequest(RandomPrompt(20 + 31 * i, i / 2), 12, i % 2, i, 1 + i % 3)));
    std::vector<CollectingSink::Result> results;
    for (const auto& sink : sinks) results.push_back(sink->WaitForEnd());
    return results;
  }
};

TEST_F(RankGroupTest, TheBitsOfRanksInOneEngine) {
  for (const auto& [family, config] : SmallConfigs()) {
    config_ = config;
    weights_ = RandomModel(config_, 3);
    for (const int size : {2, 4}) {
      SCOPED_TRACE(testing::Message() << family << ", " << size << " ranks");
      EngineOptions options = SmallOptions();
      options.max_step_tokens = 33;
      const auto group = Start(options, size);
      ASSERT_NE(group->engine, nullptr);
      options.tensor_parallel_size = size;
      const auto threads = Make(options);
      EXPECT_EQ(group->engine->Stats().num_pages, threads->Stats().num_pages);
      EXPECT_EQ(group->engine->Stats().num_slots, threads->Stats().num_slots);
      const auto a = Answers(group->engine.get()), b = Answers(threads.get());
      for (size_t i = 0; i < a.size(); ++i) {
        ASSERT_TRUE(a[i].end.status.ok()) << a[i].end.status;
        ASSERT_EQ(a[i].tokens, b[i].tokens);
        for (size_t c = 0; c < a[i].logprobs.size(); ++c) {
          for (size_t t = 0; t < a[i].logprobs[c].size(); ++t)
            ASSERT_EQ(a[i].logprobs[c][t].top, b[i].logprobs[c][t].top) << i << ", " << c << ", " << t;
        }
      }
      group->engine.reset();
      group->Join();
      for (const absl::Status& status : group->statuses) EXPECT_TRUE(status.ok()) << status;
    }
  }
}

// Each rank in turn, in the middle of a long answer and while nothing runs.
TEST_F(RankGroupTest, ALostRankEndsAll) {
  for (const int lost : {0, 1, 2}) {
    for (const bool idle : {true, false}) {
      SCOPED_TRACE(testing::Message() << "rank " << lost << (idle ? ", idle" : ""));
      const auto group = Start(SmallOptions(), 4);
      ASSERT_NE(group->engine, nullptr);
      std::shared_ptr<CollectingSink> sink;
      if (!idle) {
        sink = Submit(group->engine.get(), MakeRequest(RandomPrompt(50), 400));
        sink->WaitForTokens(3);
      }
      group->ranks[lost]->Lose(absl::UnavailableError("it was killed"));
      if (idle) sink = Submit(group->engine.get(), MakeRequest(RandomPrompt(50), 400));
      const absl::Status status = sink->WaitForEnd().end.status;
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr(lost == 0 ? "it was killed" : absl::StrCat("rank ", lost)));
      EXPECT_EQ(SubmitError(group->engine.get(), MakeRequest(RandomPrompt(5), 1)).code(),
                absl::StatusCode::kUnavailable);
      group->Join();  // the leader's end is told to all, and nobody waits for ever
      for (int r = 1; r < 4; ++r)
        EXPECT_EQ(group->statuses[r].code(), absl::StatusCode::kUnavailable) << group->statuses[r];
    }
  }
}

TEST_F(RankGroupTest, WhatOneCannotLoadEndsAll) {
  Group group(2);
  EngineOptions options = SmallOptions();
  options.tensor_parallel_size = 2;
  group.threads.emplace_back([&] {
    group.statuses[1] =
        ServeRank(options, group.ranks[1], config_, *weights_, [] { ADD_FAILURE() << "it is not ready"; });
  });
  EngineOptions leader = options;
  leader.state_cache_bytes = 1;
  const absl::Status status = CreateGroupEngine(leader, group.ranks[0], config_, *weights_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  group.ranks[0]->Lose(status);  // as the end of the process
  group.Join();
  EXPECT_EQ(group.statuses[1].code(), absl::StatusCode::kUnavailable) << group.statuses[1];
}

// What is not a step, or one that cannot be run, loses the group; the rank does not touch its state.
TEST(RankGroupSocketTest, FramesThatAreNone) {
  const StepBounds bounds = {100, 8, 100, {.page_size = 16, .num_pages = 8}};
  for (const std::vector<uint32_t>& words : {
           std::vector<uint32_t>{3, 4, 7},                               // a step of one word
           std::vector<uint32_t>{3, 3, 7},                               // of a word that is cut
           std::vector<uint32_t>{3, 0xfffffff0u, 7},                     // longer than any
           std::vector<uint32_t>{2, 4, 7},                               // a word in place of a step
           std::vector<uint32_t>{0, 0}, std::vector<uint32_t>{4, 4, 7},  // an end with something behind it
       }) {
    SocketPairs sockets(2);
    std::optional<absl::Status> lost;
    RankGroup rank(1, 2, sockets.of(1), [&](const absl::Status& why) { lost = why; });
    ASSERT_EQ(write(sockets.of(0)[0], words.data(), words.size() * 4),
              static_cast<ssize_t>(words.size() * 4));
    StepMessage message;
    const absl::StatusOr<bool> more = rank.ReceiveStep(bounds, &message);
    EXPECT_EQ(more.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(more.status().message()), HasSubstr("rank 0 is lost: "));
    ASSERT_TRUE(lost.has_value());
    EXPECT_EQ(*lost, more.status());
    EXPECT_EQ(rank.status(), *lost);
    EXPECT_EQ(rank.ReceiveStep(bounds, &message).status(), *lost);
    EXPECT_EQ(rank.Share("x").status(), *lost);
  }
}

TEST(RankGroupSocketTest, AnEndIsNoLoss) {
  SocketPairs sockets(2);
  RankGroup leader(0, 2, sockets.of(0)), rank(1, 2, sockets.of(1));
  leader.SendEnd();
  StepMessage message;
  const absl::StatusOr<bool> more = rank.ReceiveStep({}, &message);
  ASSERT_TRUE(more.ok()) << more.status();
  EXPECT_FALSE(*more);
  for (RankGroup* group : {&leader, &rank}) {
    group->Lose(absl::UnavailableError("the other process has ended"));
    EXPECT_TRUE(group->status().ok());
  }
}

TEST(RankGroupSocketTest, EveryRankHearsEveryWord) {
  SocketPairs sockets(3);
  std::vector<std::string> words = {"", std::string(64 << 10, 'x'), std::string("a\0b", 3)};
  std::vector<std::thread> threads;
  for (int r = 0; r < 3; ++r) {
    threads.emplace_back([&, r] {
      RankGroup group(r, 3, sockets.of(r));
      for (int i = 0; i < 3; ++i) {
        const auto heard = group.Share(words[r]);
        ASSERT_TRUE(heard.ok()) << heard.status();
        EXPECT_EQ(*heard, words);
        EXPECT_EQ(*group.links().share(words[r]), words[0]);
      }
      EXPECT_EQ(group.Share(std::string((64 << 10) + 1, 'x')).status().code(), absl::StatusCode::kInternal);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sessa
