// The same bits, however a request is cut, batched, cached, preempted or dealt out to ranks: every
// log-probability of the model's own distribution is compared with ==.
#include <functional>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/round.h"
#include "tests/engine/engine_fixture.h"

namespace sessa {
namespace {

struct Case {
  std::string family;
  ModelConfig config;
  DType dtype;  // of weights and state; int8 is the state's alone
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.family << "_" << Name(c.dtype); }

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const auto& [family, config] : SmallConfigs()) {
    for (DType dtype : {DType::kF32, DType::kBF16}) cases.push_back({family, config, dtype});
    if (config.mamba() == nullptr) cases.push_back({family, config, DType::kI8});
  }
  return cases;
}

// Acts on the engine's own thread at its n-th token: what it submits has arrived before the next step,
// however slow the test's thread is.
class ActingSink final : public CollectingSink {
 public:
  ActingSink(int at_token, std::function<void()> act) : at_token_(at_token), act_(std::move(act)) {}
  bool OnToken(TokenUpdate update) override {
    if (++num_tokens_ == at_token_) act_();
    return CollectingSink::OnToken(std::move(update));
  }

 private:
  const int at_token_;
  const std::function<void()> act_;
  int num_tokens_ = 0;
};

class SameBitsTest : public EngineFixture, public testing::WithParamInterface<Case> {
 protected:
  SameBitsTest() {
    config_ = GetParam().config;
    weights_ = RandomModel(config_, 3);
  }
  bool is_recurrent() const { return config_.mamba() != nullptr; }
  static EngineOptions Options() {
    EngineOptions o = SmallOptions();
    o.weight_dtype = o.state_dtype = GetParam().dtype;
    if (o.state_dtype == DType::kI8) o.weight_dtype = DType::kF32;
    return o;
  }

  static void ExpectSameBits(const CollectingSink::Result& a, const CollectingSink::Result& b) {
    ASSERT_TRUE(a.end.status.ok() && b.end.status.ok()) << a.end.status << b.end.status;
    ASSERT_EQ(a.tokens, b.tokens);
    for (size_t c = 0; c < a.logprobs.size(); ++c) {
      for (size_t i = 0; i < a.logprobs[c].size(); ++i) {
        ASSERT_EQ(a.logprobs[c][i].logprob, b.logprobs[c][i].logprob) << "choice " << c << " token " << i;
        ASSERT_EQ(a.logprobs[c][i].top, b.logprobs[c][i].top) << "choice " << c << " token " << i;
      }
    }
  }

  static std::shared_ptr<CollectingSink> SubmitAndAct(Engine* engine, Request request, int at_token,
                                                      std::function<void()> act) {
    auto sink = std::make_shared<ActingSink>(at_token, std::move(act));
    request.sink = sink;
    EXPECT_TRUE(engine->Submit(std::move(request)).ok());
    return sink;
  }

  // Alone, whole prompt in one step, no cache, one rank: what everything else is compared with.
  CollectingSink::Result Alone(const Request& request) { return Alone(request, Options()); }
  CollectingSink::Result Alone(const Request& request, EngineOptions o) {
    o.enable_prefix_caching = false;
    o.max_step_tokens = 512;
    o.target_step_time = absl::InfiniteDuration();
    auto engine = Make(o);
    return Submit(engine.get(), request)->WaitForEnd();
  }
};

TEST_P(SameBitsTest, ChunksAroundThePageEdge) {
  const Request request = MakeRequest(RandomPrompt(150), 12);
  const auto alone = Alone(request);
  for (int page_size : {16, 32, 64}) {
    for (int chunk : {1, page_size - 1, page_size, page_size + 1}) {
      SCOPED_TRACE(testing::Message() << "pages of " << page_size << ", chunks of " << chunk);
      EngineOptions o = Options();
      o.page_size = page_size;
      o.max_step_tokens = chunk;
      o.target_step_time = absl::InfiniteDuration();
      auto engine = Make(o);
      ExpectSameBits(Submit(engine.get(), request)->WaitForEnd(), alone);
      EXPECT_EQ(engine->Stats().num_steps, CeilDiv(150, chunk) + 11);
    }
  }
}

TEST_P(SameBitsTest, ChunksBatchesAndRanks) {
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i)
    requests.push_back(MakeRequest(RandomPrompt(20 + 31 * i, i), 20 - i, i % 2 ? 1.0f : 0.0f, i, 1 + i % 3));
  std::vector<CollectingSink::Result> alone;
  for (const Request& r : requests) alone.push_back(Alone(r));
  for (auto [ranks, page_size, chunk] :
       {std::tuple{1, 16, 17}, {2, 16, 64}, {4, 16, 65}, {4, 64, 100}, {8, 32, 33}}) {
    EngineOptions o = Options();
    o.tensor_parallel_size = ranks;
    o.page_size = page_size;
    o.max_step_tokens = chunk;
    auto engine = Make(o);
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (const Request& r : requests) sinks.push_back(Submit(engine.get(), r));
    for (size_t i = 0; i < sinks.size(); ++i) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, request " << i);
      ExpectSameBits(sinks[i]->WaitForEnd(), alone[i]);
    }
  }
}

TEST_P(SameBitsTest, PrefixHitAroundThePageEdge) {
  for (int page_size : {16, 64}) {
    EngineOptions o = Options();
    o.page_size = page_size;
    auto engine = Make(o);
    Submit(engine.get(), MakeRequest(RandomPrompt(200), 1))->WaitForEnd();
    // The last token's row is computed always, so a prompt of whole pages finds all but its last one.
    for (auto [length, pages] : {std::pair{page_size - 1, 0},
                                 {page_size, 0},
                                 {page_size + 1, 1},
                                 {2 * page_size - 1, 1},
                                 {2 * page_size, 1},
                                 {2 * page_size + 1, 2},
                                 {200, 199 / page_size}}) {
      SCOPED_TRACE(testing::Message() << length << " tokens, pages of " << page_size);
      auto prompt = RandomPrompt(200);
      prompt.resize(length);
      const Request request = MakeRequest(prompt, 10);
      const auto alone = Alone(request);
      // There a hit needs a snapshot, which the first of its length leaves.
      if (is_recurrent()) ExpectSameBits(Submit(engine.get(), request)->WaitForEnd(), alone);
      const auto hit = Submit(engine.get(), request)->WaitForEnd();
      EXPECT_EQ(hit.prompt.num_cached_tokens, pages * page_size);
      ExpectSameBits(hit, alone);
    }
    EXPECT_GT(engine->Stats().prefix_cache_hits, 0);
  }
}

// Five prompts at once that begin alike and go on differently, one of them with three choices, in chunks that
// cut anywhere; with recurrent state they start from one snapshot, and few slots are left for others.
TEST_P(SameBitsTest, ConcurrentHits) {
  std::vector<Request> requests;
  for (int i = 0; i < 5; ++i) {
    auto prompt = RandomPrompt(70);
    const auto tail = RandomPrompt(1 + 20 * i, 50 + i);
    prompt.insert(prompt.end(), tail.begin(), tail.end());
    requests.push_back(MakeRequest(prompt, 20, 1, i, i == 1 ? 3 : 1));
  }
  std::vector<CollectingSink::Result> alone;
  for (const Request& r : requests) alone.push_back(Alone(r));
  for (int slots : {5, 9, 100}) {
    EngineOptions o = Options();
    o.page_size = 16;
    o.max_num_seqs = 5;
    o.max_step_tokens = 23;
    if (is_recurrent()) o.state_cache_bytes = slots * (o.state_cache_bytes / Make(o)->Stats().num_slots);
    auto engine = Make(o);
    for (int round = 0; round < 2; ++round) {  // the second after whatever the first left in the slots
      std::vector<std::shared_ptr<CollectingSink>> sinks;
      for (const Request& r : requests) sinks.push_back(Submit(engine.get(), r));
      for (size_t i = 0; i < sinks.size(); ++i) {
        SCOPED_TRACE(testing::Message() << slots << " slots, round " << round << ", request " << i);
        ExpectSameBits(sinks[i]->WaitForEnd(), alone[i]);
      }
    }
    if (!is_recurrent() || slots > o.max_num_seqs) {  // else snapshots are for the lucky
      EXPECT_GT(engine->Stats().prefix_cache_hits, 0);
    }
    EXPECT_EQ(engine->Stats().num_used_slots, 0);
    if (!is_recurrent()) break;
    EXPECT_EQ(engine->Stats().num_slots, slots);
  }
}

// What sequences begin with alike is read once for all of them (kernels/shared_reads.h): a prefix of all but
// one, a longer one of some, and one request's choices, with drafts or without, with pages for all or for
// few.
TEST_P(SameBitsTest, SharedPrefixesReadTogether) {
  config_.max_position_embeddings = 1024;
  const auto trunk = RandomPrompt(580), branch = RandomPrompt(130, 9);
  std::vector<Request> requests;
  for (int i = 0; i < 5; ++i) {
    auto prompt = i < 4 ? trunk : RandomPrompt(150, 8);
    if (i % 2 == 1) prompt.insert(prompt.end(), branch.begin(), branch.end());
    prompt.insert(prompt.end(), trunk.begin(), trunk.begin() + 40 * i + 1);
    requests.push_back(MakeRequest(prompt, 40 - 5 * i, 1, i, i == 1 ? 3 : 1));
    requests.back().sampling.allowed_token_ids = {1, 2, 3, 4, 5};  // so that drafts are right now and then
  }
  const bool has_amx = CpuHasAmx() && GetParam().dtype == DType::kBF16;
  for (bool amx : {false, true}) {
    if (amx && !has_amx) continue;
    EngineOptions o = Options();
    o.amx = amx;
    o.max_step_tokens = 1024;
    o.target_step_time = absl::InfiniteDuration();
    o.enable_prefix_caching = false;
    std::vector<CollectingSink::Result> alone;
    for (const Request& r : requests) alone.push_back(Alone(r, o));
    o.enable_prefix_caching = true;
    for (auto [ranks, page_size, drafts, few_pages] :
         {std::tuple{1, 64, 0, false}, {2, 16, 3, false}, {4, 32, 0, false}, {1, 16, 3, true}}) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, pages of " << page_size << ", amx " << amx);
      o.tensor_parallel_size = ranks;
      o.page_size = page_size;
      o.num_speculative_tokens = is_recurrent() ? -1 : drafts;
      o.state_cache_bytes = Options().state_cache_bytes;
      if (few_pages && !is_recurrent())
        o.state_cache_bytes = 75 * (o.state_cache_bytes / Make(o)->Stats().num_pages);
      auto engine = Make(o);
      std::vector<std::shared_ptr<CollectingSink>> sinks;
      Request opener = requests[1];
      opener.n = opener.sampling.max_tokens = 1;
      SubmitAndAct(engine.get(), opener, 1, [&] {
        for (const Request& r : requests) sinks.push_back(Submit(engine.get(), r));
      })->WaitForEnd();
      for (size_t i = 0; i < sinks.size(); ++i) {
        SCOPED_TRACE(testing::Message() << "request " << i);
        ExpectSameBits(sinks[i]->WaitForEnd(), alone[i]);
      }
      EXPECT_EQ(engine->Stats().num_shared_reads > 0, !is_recurrent());
      EXPECT_EQ(engine->Stats().num_used_pages, 0);
    }
  }
}

// A tenant that has nothing running gets the place of another's last sequence, which goes on later: from its
// pages, or from a snapshot.
TEST_P(SameBitsTest, PreemptedForAnotherTenant) {
  std::vector<Request> requests;
  for (int i = 0; i < 3; ++i) {
    requests.push_back(MakeRequest(RandomPrompt(50, i), i < 2 ? 300 : 8, 1, i));
    requests.back().tenant = i < 2 ? "many" : "one";
  }
  std::vector<CollectingSink::Result> alone;
  for (const Request& r : requests) alone.push_back(Alone(r));
  EngineOptions o = Options();
  o.max_num_seqs = 2;
  auto engine = Make(o);
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  SubmitAndAct(engine.get(), MakeRequest(RandomPrompt(5), 1), 1, [&] {
    sinks.push_back(Submit(engine.get(), requests[0]));
    sinks.push_back(SubmitAndAct(engine.get(), requests[1], 20,
                                 [&] { sinks.push_back(Submit(engine.get(), requests[2])); }));
  })->WaitForEnd();
  sinks[1]->WaitForEnd();
  for (size_t i = 0; i < sinks.size(); ++i) ExpectSameBits(sinks[i]->WaitForEnd(), alone[i]);
  EXPECT_EQ(engine->Stats().num_preemptions, 1);
}

TEST_P(SameBitsTest, PreemptedIsUninterrupted) {
  if (is_recurrent()) GTEST_SKIP() << "its state does not grow: nothing is preempted for lack of memory";
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) requests.push_back(MakeRequest(RandomPrompt(40, i), 90, 1, i));
  std::vector<CollectingSink::Result> alone;
  for (const Request& r : requests) alone.push_back(Alone(r));
  for (auto [ranks, caching] : {std::pair{1, true}, {1, false}, {2, true}}) {
    EngineOptions o = Options();
    o.tensor_parallel_size = ranks;
    o.state_cache_bytes = 41 * o.state_cache_bytes / (2 * Make(o)->Stats().num_pages);
    o.enable_prefix_caching = caching;
    auto engine = Make(o);
    ASSERT_EQ(engine->Stats().num_pages, 20);  // each needs 9 at its end
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (int i = 0; i < 3; ++i) {  // after answers so short more are started than have room for long ones
      Request brief = MakeRequest(RandomPrompt(5), 280);
      brief.sampling.allowed_token_ids = brief.sampling.stop_token_ids = {7};
      SubmitAndAct(engine.get(), brief, 1, [&] {
        for (const Request& r : requests)
          if (i == 2) sinks.push_back(Submit(engine.get(), r));
      })->WaitForEnd();
    }
    for (size_t i = 0; i < sinks.size(); ++i) ExpectSameBits(sinks[i]->WaitForEnd(), alone[i]);
    EXPECT_GT(engine->Stats().num_preemptions, 0);
    EXPECT_GT(engine->Stats().num_recomputed_tokens, 0);
    EXPECT_EQ(engine->Stats().num_used_pages, 0);
  }
}

TEST_P(SameBitsTest, PromptLogprobsInChunks) {
  Request request = MakeRequest(RandomPrompt(75), 2);
  request.sampling.prompt_logprobs = true;
  request.sampling.num_logprobs = 5;
  const auto alone = Alone(request);
  EngineOptions o = Options();
  o.max_step_tokens = 19;
  auto engine = Make(o);
  const auto chunked = Submit(engine.get(), request)->WaitForEnd();
  ASSERT_EQ(alone.prompt.logprobs.size(), 74u);
  ASSERT_EQ(chunked.prompt.logprobs.size(), 74u);
  for (int i = 0; i < 74; ++i) {
    EXPECT_EQ(chunked.prompt.logprobs[i].logprob, alone.prompt.logprobs[i].logprob);
    EXPECT_EQ(chunked.prompt.logprobs[i].top, alone.prompt.logprobs[i].top);
  }
  request.sampling.prompt_logprobs_start = 70;
  const auto tail = Submit(engine.get(), request)->WaitForEnd();
  EXPECT_EQ(tail.prompt.num_cached_tokens, 64);
  ASSERT_EQ(tail.prompt.logprobs.size(), 5u);
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(tail.prompt.logprobs[i].logprob, alone.prompt.logprobs[69 + i].logprob);
}

// Prompts and answers that repeat themselves in part, so that drafts are right and wrong at every place,
// under all that depends on the tokens before: penalties, min_tokens, stop tokens. Twice each: the second
// time most of it is found in the cache, and what a wrong draft left there would be found too.
TEST_P(SameBitsTest, DraftsChangeNothing) {
  std::vector<Request> requests;
  for (int i = 0; i < 8; ++i) {
    auto prompt = RandomPrompt(9 + 5 * i, i);
    prompt.insert(prompt.end(), prompt.begin(), prompt.end() - i);
    requests.push_back(MakeRequest(prompt, 60, i % 2 ? 0.7f : 0.0f, i, i == 1 ? 3 : 1));
    if (i > 0) requests.back().sampling.allowed_token_ids = {1, 2, 3, 4, 5};
  }
  requests[2].sampling.frequency_penalty = 0.1f;
  requests[3].sampling.repetition_penalty = 1.1f;
  requests[4].sampling.presence_penalty = -1;
  requests[5].sampling.logit_bias = {{2, 2.0f}, {3, 2.0f}};
  requests[6].sampling.min_tokens = 30;
  requests[6].sampling.stop_token_ids = {1, 3};
  requests[7].sampling.top_p = 0.6f;
  std::vector<CollectingSink::Result> alone;
  for (const Request& r : requests) alone.push_back(Alone(r));
  for (auto [ranks, page_size, drafts, pages] :
       {std::tuple{1, 16, 7, 0}, {2, 64, kMaxDrafts, 0}, {1, 16, 7, 20}}) {
    EngineOptions o = Options();
    o.tensor_parallel_size = ranks;
    o.page_size = page_size;
    o.num_speculative_tokens = is_recurrent() ? -1 : drafts;
    if (pages > 0 && !is_recurrent())
      o.state_cache_bytes = pages * (o.state_cache_bytes / Make(o)->Stats().num_pages);
    auto engine = Make(o);
    for (int round = 0; round < 2; ++round) {
      std::vector<std::shared_ptr<CollectingSink>> sinks;
      for (const Request& r : requests) sinks.push_back(Submit(engine.get(), r));
      for (size_t i = 0; i < sinks.size(); ++i) {
        SCOPED_TRACE(testing::Message() << ranks << " ranks, pages of " << page_size << ", " << drafts
                                        << " drafts, round " << round << ", request " << i);
        ExpectSameBits(sinks[i]->WaitForEnd(), alone[i]);
      }
    }
    const EngineStats stats = engine->Stats();
    EXPECT_EQ(stats.accepted_draft_tokens > 0, !is_recurrent());
    EXPECT_EQ(stats.draft_tokens > stats.accepted_draft_tokens, !is_recurrent());
    EXPECT_EQ(stats.num_used_pages, 0);
    if (is_recurrent()) break;  // there are no drafts
  }
}

INSTANTIATE_TEST_SUITE_P(Families, SameBitsTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return testing::PrintToString(info.param); });

}  // namespace
}  // namespace sessa
