#include <map>
#include <ostream>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/engine/scheduler_harness.h"

namespace sessa {
namespace {

// 10 000 arrivals with shared prefixes, several choices, cancels, stops, deadlines and a pool that is far too
// small.
struct Simulation {
  int classes, page_size, pages_per_class, max_preemptions;
  bool prefix_caching;
  uint64_t hash_mask;
  int num_slots = 0;
  bool ahead = false;
};
void PrintTo(const Simulation& s, std::ostream* os) {
  *os << s.classes << " classes, pages of " << s.page_size << ", " << s.max_preemptions
      << " preemptions, caching " << s.prefix_caching << ", " << s.num_slots << " slots"
      << (s.ahead ? ", ahead" : "");
}

class SimulationTest : public ::testing::TestWithParam<Simulation> {};

TEST_P(SimulationTest, TenThousandArrivals) {
  const Simulation& p = GetParam();
  SchedulerHarness h({.page_size = p.page_size,
                      .num_pages = p.classes * p.pages_per_class,
                      .num_ranks = p.classes,
                      .num_slots = p.num_slots},
                     {.max_num_seqs = 12,
                      .max_step_tokens = 96,
                      .max_model_len = 180,
                      .enable_prefix_caching = p.prefix_caching,
                      .max_preemptions = p.max_preemptions,
                      .num_speculative_tokens = 7});
  h.scheduler_.mutable_pool_for_testing()->SetHashMaskForTesting(p.hash_mask);
  h.plans_ahead_ = p.ahead;
  std::mt19937 rng(p.classes * 100 + p.page_size);
  const auto chance = [&rng](double probability) { return rng() % 1000 < probability * 1000; };
  RequestId next = 1;
  int refused = 0;
  std::vector<RequestId> undisturbed;
  std::map<RequestId, bool> disturbed;
  for (int step = 0; next <= 10000 || h.scheduler_.has_work() || !h.under_way_.empty(); ++step) {
    ASSERT_LT(step, 400000);
    const bool burst = step / 200 % 2 == 0;
    while (next <= 10000 && chance(burst ? 0.3 : 0.05)) {
      auto prompt = RandomPrompt(static_cast<int>(rng() % 100),
                                 static_cast<int>(rng() % 4));  // of four shared beginnings
      for (int tail = static_cast<int>(rng() % 40) + 1; tail > 0; --tail)
        prompt.push_back(static_cast<int32_t>(rng() % 31));
      Request request;
      request.n = chance(0.2) ? 1 + static_cast<int>(rng() % 3) : 1;
      request.sampling.seed = rng();
      request.sampling.ignore_eos = chance(0.3);
      request.sampling.temperature = chance(0.3) ? 0 : 1;
      if (chance(0.2)) request.num_speculative_tokens = static_cast<int>(rng() % (kMaxDrafts + 1));
      if (p.ahead && chance(0.02)) request.sampling.presence_penalty = 1;  // such steps are not planned ahead
      request.tenant = chance(0.3) ? "b" : "a";
      request.priority = chance(0.1) ? -1 : 0;
      if (chance(0.05)) request.deadline = h.now_ + absl::Milliseconds(rng() % 1000);
      const RequestId id = next++;
      disturbed[id] = request.deadline != absl::InfiniteFuture();
      if (h.scheduler_.Stats().num_waiting >= 40) {  // the engine's limit
        ++refused;
        continue;
      }
      const absl::Status added = h.Add(id, prompt, 1 + static_cast<int>(rng() % 40), request);
      if (!added.ok()) {
        EXPECT_EQ(added.code(), absl::StatusCode::kResourceExhausted) << added;
      }
    }
    if (chance(0.1)) {
      const RequestId id = 1 + rng() % next;
      if (h.records_.contains(id)) {
        if (!h.records_[id].ended) disturbed[id] = true;
        if (chance(0.5)) {
          h.scheduler_.Cancel(id, h.now_, &h.events_);
        } else {
          h.scheduler_.StopChoice(id, static_cast<int>(rng() % 2), h.now_, &h.events_);
        }
      }
    }
    h.Step();
    const absl::Status intact = h.scheduler_.CheckInvariants();
    ASSERT_TRUE(intact.ok()) << "step " << step << ": " << intact;
    if (HasFailure()) return;
  }
  int whole = 0;
  for (const auto& [id, record] : h.records_) {
    ASSERT_TRUE(record.ended) << id;
    EXPECT_LE(record.end.num_preemptions, p.max_preemptions * record.request.n);
    if (disturbed[id]) continue;
    h.ExpectUndisturbed(id);
    ++whole;
  }
  const SchedulerStats stats = h.scheduler_.Stats();
  EXPECT_EQ(stats.num_used_pages + stats.num_used_slots, 0);
  EXPECT_EQ(stats.num_running + stats.num_waiting + stats.waiting_tokens, 0);
  EXPECT_GT(whole, 4000);
  EXPECT_EQ(stats.accepted_draft_tokens > 1000, p.num_slots == 0);
  EXPECT_EQ(stats.draft_tokens > stats.accepted_draft_tokens, p.num_slots == 0);
  EXPECT_EQ(h.num_planned_ahead_ > 10000, p.ahead) << h.num_planned_ahead_;
  EXPECT_GT(refused, 0);  // the queue's limit was reached
  EXPECT_EQ(stats.num_preemptions > 0, p.max_preemptions > 0);
  EXPECT_EQ(stats.prefix_cache_hits > 0, p.prefix_caching);
  RecordProperty("steps", absl::StrCat(stats.num_steps));
  RecordProperty("preemptions", absl::StrCat(stats.num_preemptions));
}

INSTANTIATE_TEST_SUITE_P(
    Pools, SimulationTest,
    testing::Values(Simulation{1, 16, 24, 4, true, ~0ull}, Simulation{2, 16, 14, 4, true, ~0ull},
                    Simulation{4, 32, 6, 2, true, ~0ull}, Simulation{1, 64, 6, 4, true, 7},
                    Simulation{1, 16, 24, 4, false, ~0ull}, Simulation{2, 16, 14, 0, true, ~0ull},
                    Simulation{1, 16, 24, 4, true, ~0ull, 12}, Simulation{2, 16, 14, 4, true, ~0ull, 30},
                    Simulation{1, 16, 24, 4, true, 7, 3}, Simulation{1, 16, 24, 4, false, ~0ull, 14},
                    Simulation{1, 16, 24, 4, true, ~0ull, 0, true},
                    Simulation{4, 32, 6, 2, true, ~0ull, 0, true}, Simulation{2, 16, 14, 0, true, 7, 0, true},
                    Simulation{1, 16, 24, 4, true, ~0ull, 12, true},
                    Simulation{1, 16, 24, 4, false, ~0ull, 14, true}));

}  // namespace
}  // namespace sessa
