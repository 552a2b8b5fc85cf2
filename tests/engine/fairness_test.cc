// Who is served how much when several tenants want more than there is: the Scheduler over the fake model,
// slots for eight sequences, requests of 20 + 20 tokens, each tenant at its own rate.
#include <map>
#include <string>
#include <vector>

#include "tests/engine/scheduler_harness.h"

namespace sessa {
namespace {

constexpr int kSlots = 8, kPrompt = 20, kAnswer = 20;
// A request holds its slot for about kAnswer steps.
constexpr double kCapacity = static_cast<double>(kSlots) / kAnswer;  // requests a step

class FairnessTest : public ::testing::Test {
 protected:
  struct Sender {
    std::string tenant;
    int weight;
    double rate;  // of the capacity
    int priority = 0;
    double owed = 0;
  };

  // `steps` of each sender's constant rate.
  void Play(std::vector<Sender> senders, int steps) {
    for (int i = 0; i < steps; ++i) {
      for (Sender& sender : senders) {
        for (sender.owed += sender.rate * kCapacity; sender.owed >= 1; sender.owed -= 1) {
          Request request = NoEos();
          request.tenant = sender.tenant;
          request.tenant_weight = sender.weight;
          request.priority = sender.priority;
          const RequestId id = next_++;
          ASSERT_TRUE(h_.Add(id, RandomPrompt(kPrompt, static_cast<int>(id)), kAnswer, request).ok());
        }
      }
      h_.Step();
    }
  }
  // Tokens that tenants were given so far.
  std::map<std::string, int64_t> Served() const {
    std::map<std::string, int64_t> served;
    for (const auto& [id, r] : h_.records_)
      served[r.request.tenant] +=
          (r.prompted ? r.prompt.num_tokens : 0) + static_cast<int64_t>(r.tokens[0].size());
    return served;
  }
  // Each tenant's share of what was served since `before`.
  std::map<std::string, double> SharesSince(std::map<std::string, int64_t> before) const {
    std::map<std::string, double> shares;
    double sum = 0;
    for (const auto& [tenant, tokens] : Served())
      sum += shares[tenant] = static_cast<double>(tokens - before[tenant]);
    for (auto& [tenant, share] : shares) share /= sum;
    return shares;
  }
  // Steps that the tenant's requests waited for their slot, on average.
  double MeanWait(const std::string& tenant) const {
    double sum = 0, count = 0;
    for (const auto& [id, r] : h_.records_) {
      if (r.request.tenant != tenant || !r.ended) continue;
      sum += (r.end.scheduled - r.end.arrival) / absl::Milliseconds(10);
      ++count;
    }
    return sum / count;
  }

  SchedulerHarness h_{{.page_size = 16, .num_pages = 64},
                      {.max_num_seqs = kSlots, .max_step_tokens = 64, .max_model_len = 64}};
  RequestId next_ = 1;
};

TEST_F(FairnessTest, EqualWeightsShareEquallyWhateverTheySend) {
  Play({{"much", 1, 10}, {"some", 1, 1}}, 100);
  const auto before = Served();
  Play({{"much", 1, 10}, {"some", 1, 1}}, 1000);
  EXPECT_NEAR(SharesSince(before)["some"], 0.5, 0.02);
}

TEST_F(FairnessTest, WhoSendsLessThanItsShareGetsAllOfItAtOnce) {
  Play({{"much", 1, 4}, {"little", 1, 0.4}}, 100);
  const auto before = Served();
  Play({{"much", 1, 4}, {"little", 1, 0.4}}, 1000);
  auto shares = SharesSince(before);
  EXPECT_NEAR(shares["little"], 0.4, 0.02);
  EXPECT_NEAR(shares["much"], 0.6, 0.02);  // nothing is left unused
  EXPECT_LT(MeanWait("little"), kAnswer);  // until one of the eight slots is free
}

TEST_F(FairnessTest, WeightsAreShares) {
  Play({{"paid", 4, 10}, {"free", 1, 10}}, 100);
  const auto before = Served();
  Play({{"paid", 4, 10}, {"free", 1, 10}}, 1000);
  EXPECT_NEAR(SharesSince(before)["paid"], 0.8, 0.02);
}

TEST_F(FairnessTest, TenTimesTheWeightForTenTimesTheLoad) {
  Play({{"much", 10, 10}, {"one", 1, 1}, {"other", 1, 1}}, 100);
  const auto before = Served();
  Play({{"much", 10, 10}, {"one", 1, 1}, {"other", 1, 1}}, 2000);
  auto shares = SharesSince(before);
  EXPECT_NEAR(shares["much"], 10.0 / 12, 0.02);
  EXPECT_NEAR(shares["one"], 1.0 / 12, 0.01);
}

// All slots are taken by answers of 900 tokens: who comes then does not wait for one of them to end.
TEST_F(FairnessTest, ATenantWithoutASlotGetsOne) {
  SchedulerHarness h({.page_size = 16, .num_pages = 1024}, {.max_num_seqs = kSlots, .max_model_len = 1000});
  for (RequestId id = 1; id <= 2 * kSlots; ++id) {
    Request request = NoEos();
    request.tenant = "much";
    ASSERT_TRUE(h.Add(id, RandomPrompt(kPrompt, static_cast<int>(id)), 900, request).ok());
  }
  for (int i = 0; i < 100; ++i) h.Step();
  EXPECT_EQ(h.scheduler_.Stats().num_running, kSlots);
  Request request = NoEos();
  for (RequestId id = 101; id <= 103; ++id) {  // one after the other, of two tenants
    request.tenant = id == 102 ? "third" : "other";
    ASSERT_TRUE(h.Add(id, RandomPrompt(kPrompt, static_cast<int>(id)), kAnswer, request).ok());
    const absl::Time arrival = h.now_;
    for (int i = 0; i < 10; ++i) h.Step();
    EXPECT_EQ(h.scheduler_.Stats().num_running, kSlots);
    while (!h.records_[id].ended) h.Step();
    EXPECT_LE(h.records_[id].end.scheduled, arrival + absl::Milliseconds(20)) << id;
  }
  EXPECT_GT(h.scheduler_.Stats().num_preemptions, 0);
  h.Run();
  for (const auto& [id, record] : h.records_) h.ExpectUndisturbed(id);
  EXPECT_EQ(h.records_[1].end.num_preemptions, 0);                    // the newest gives way
  EXPECT_LE(h.scheduler_.Stats().num_recomputed_tokens, 3 * 16 + 3);  // less than a page of each
}

TEST_F(FairnessTest, PriorityBuysNothingFromOthers) {
  Play({{"urgent", 1, 10, -1000}, {"plain", 1, 10}}, 100);
  const auto before = Served();
  Play({{"urgent", 1, 10, -1000}, {"plain", 1, 10}}, 1000);
  EXPECT_NEAR(SharesSince(before)["plain"], 0.5, 0.02);
}

TEST_F(FairnessTest, UrgentRequestsGoAheadOfTheTenantsOwn) {
  Play({{"tenant", 1, 5, 0}, {"tenant", 1, 0.5, -1}}, 500);
  std::map<int, std::pair<double, int>> waits;  // by priority: sum and number
  for (const auto& [id, r] : h_.records_) {
    if (!r.ended) continue;
    auto& [sum, count] = waits[r.request.priority];
    sum += (r.end.scheduled - r.end.arrival) / absl::Milliseconds(10);
    ++count;
  }
  EXPECT_LT(waits[-1].first / waits[-1].second, kAnswer);  // until one of the eight slots is free
  EXPECT_GT(waits[0].first / waits[0].second, 3 * kAnswer);
}

TEST_F(FairnessTest, IdlingSavesUpNoCredit) {
  Play({{"back", 1, 2}, {"busy", 1, 2}}, 200);
  while (Served()["back"] < 40 * 80) h_.Step();  // its queue runs dry
  Play({{"busy", 1, 2}}, 1000);
  const auto before = Served();
  Play({{"back", 1, 2}, {"busy", 1, 2}}, 300);
  EXPECT_NEAR(SharesSince(before)["back"], 0.5, 0.05);
}

TEST_F(FairnessTest, AloneATenantHasEverything) {
  Play({{"much", 1, 2}}, 100);
  const auto before = Served();
  Play({{"much", 1, 2}}, 1000);
  const int64_t served = Served()["much"] - before.at("much");
  EXPECT_NEAR(static_cast<double>(served), 1000 * kCapacity * (kPrompt + kAnswer), 1000 * kCapacity);
}

// Pages for two of three: somebody gives way, and asking for priority does not make it another tenant.
TEST(PreemptionFairnessTest, PriorityChoosesAmongTheTenantsOwn) {
  for (const int priority : {-1000, 0, 1000}) {
    SchedulerHarness h({.page_size = 16, .num_pages = 11}, {.max_model_len = 100});
    for (RequestId id = 11; id <= 110; ++id) {  // short answers: the next are too many for the pages
      ASSERT_TRUE(h.Add(id, RandomPrompt(3, static_cast<int>(id)), 90, NoEos()).ok());
      h.Step();
      h.scheduler_.StopChoice(id, 0, h.now_, &h.events_);
      h.Run();
    }
    const auto add = [&h](RequestId id, const std::string& tenant, int priority) {
      Request request = NoEos();
      request.tenant = tenant;
      request.priority = priority;
      ASSERT_TRUE(h.Add(id, RandomPrompt(17, static_cast<int>(id)), 60, request).ok());
    };
    add(1, "own", 0);
    add(2, "other", 0);
    add(3, "own", priority);
    h.Run();
    for (RequestId id = 1; id <= 3; ++id) h.ExpectUndisturbed(id);
    EXPECT_EQ(h.records_[2].end.num_preemptions, 0) << priority;
    EXPECT_GT(h.records_[priority < 0 ? 1 : 3].end.num_preemptions, 0) << priority;
    EXPECT_EQ(h.records_[priority < 0 ? 3 : 1].end.num_preemptions, 0) << priority;
  }
}

}  // namespace
}  // namespace sessa
