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

  SchedulerHarness h_{{.page_size = 16,
                       .num_pages = 64,
                       .max_num_seqs = kSlots,
                       .max_step_tokens = 64,
                       .max_model_len = 64,
                       .max_queued_requests = 100000}};
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

}  // namespace
}  // namespace sessa
