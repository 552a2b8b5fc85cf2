// A tenant's limits over a clock that the test sets: rates, tokens, requests at once, and what a reload
// keeps.
#include "server/core/tenants.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/core/errors.h"

namespace sessa {
namespace {

absl::Time now = absl::UnixEpoch();

void After(absl::Duration time) { now += time; }

class TenantsTest : public ::testing::Test {
 protected:
  void Keys(const std::string& fields, int max_requests = 0) {
    auto keys = ApiKeys::Parse("key t " + fields + "\nother-key other\n");
    ASSERT_TRUE(keys.ok()) << keys.status();
    if (tenants_ == nullptr) {
      tenants_ = std::make_unique<Tenants>(*std::move(keys), max_requests, [] { return now; });
    } else {
      tenants_->Reload(*std::move(keys));
    }
  }
  // How long until it is taken, as its refusal says; zero: it was taken.
  static absl::Duration Wait(const absl::Status& status) {
    if (status.ok()) return absl::ZeroDuration();
    const ErrorInfo info = Describe(status);
    EXPECT_EQ(info.http_status, 429) << status;
    EXPECT_EQ(info.code, "rate_limit_exceeded");
    return info.retry_after;
  }
  absl::Duration TakeRequest() { return Wait(tenants_->TakeRequest("t")); }
  absl::Duration Room() { return Wait(tenants_->CheckRoom("t")); }
  absl::Duration Enter(int64_t tokens, Tenants::Pass* pass) {
    auto entered = tenants_->Enter("t", tokens);
    if (entered.ok()) *pass = *std::move(entered);
    return Wait(entered.status());
  }
  TenantUse Use(const std::string& label = "t") {
    for (const TenantUse& use : tenants_->Use()) {
      if (use.label == label) return use;
    }
    return {};
  }

  std::unique_ptr<Tenants> tenants_;
};

TEST_F(TenantsTest, ABurstThenTheRate) {
  Keys("rate=2 burst=5");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(TakeRequest(), absl::ZeroDuration()) << i;
  EXPECT_EQ(TakeRequest(), absl::Milliseconds(500));
  EXPECT_EQ(TakeRequest(), absl::Milliseconds(500));  // a refusal takes nothing
  After(absl::Milliseconds(499));
  EXPECT_EQ(TakeRequest(), absl::Milliseconds(1));
  After(absl::Milliseconds(1));  // who comes when it was told to is taken
  EXPECT_EQ(TakeRequest(), absl::ZeroDuration());
  int taken = 0;
  for (int i = 0; i < 10000; ++i) {
    After(absl::Milliseconds(10));
    taken += TakeRequest() == absl::ZeroDuration();
  }
  EXPECT_NEAR(taken, 200, 1);  // in 100 s
  After(absl::Hours(1));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(TakeRequest(), absl::ZeroDuration()) << i;
  EXPECT_GT(TakeRequest(), absl::ZeroDuration());  // time that goes unused saves up no more than the burst
  EXPECT_EQ(Use().over_rate, 3 + 10000 - taken + 1);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(tenants_->TakeRequest("other").ok());
}

TEST_F(TenantsTest, TokensAreTakenWholeAndGivenBack) {
  Keys("tokens_per_minute=600");
  Tenants::Pass first, second, third;
  EXPECT_EQ(Enter(400, &first), absl::ZeroDuration());
  EXPECT_EQ(Enter(201, &second), absl::Milliseconds(100));  // 10 a second
  EXPECT_EQ(Enter(200, &second), absl::ZeroDuration());
  EXPECT_EQ(Room(), absl::Milliseconds(100));  // before a body is parsed: not one is left
  first.End(100, 50);
  first.End(100, 50);  // once
  EXPECT_EQ(Room(), absl::ZeroDuration());
  EXPECT_EQ(Enter(251, &third), absl::Milliseconds(100));
  EXPECT_EQ(Enter(250, &third), absl::ZeroDuration());
  EXPECT_EQ(Use().prompt_tokens, 100);
  EXPECT_EQ(Use().generation_tokens, 50);
  EXPECT_EQ(Use().requests, 1);
  EXPECT_EQ(Use().running, 2);
  EXPECT_EQ(Use().over_tokens, 3);
  second = Tenants::Pass();  // it never ran
  EXPECT_EQ(Use().running, 1);
  EXPECT_EQ(Use().requests, 1);
  EXPECT_EQ(Enter(200, &second), absl::ZeroDuration());
}

TEST_F(TenantsTest, MoreThanAMinutesTokensAreServedFromAFullBucket) {
  Keys("tokens_per_minute=600");
  Tenants::Pass large, next;
  EXPECT_EQ(Enter(6000, &large), absl::ZeroDuration());
  large.End(5000, 100);
  EXPECT_EQ(Enter(1, &next), absl::Milliseconds(450100));  // 5100 were used, 600 were there
  After(absl::Milliseconds(450100));
  EXPECT_EQ(Enter(1, &next), absl::ZeroDuration());
  EXPECT_EQ(Enter(6000, &large), absl::Minutes(1));
}

TEST_F(TenantsTest, RequestsAtOnce) {
  Keys("max_requests=2", 1);
  Tenants::Pass first, second, third;
  EXPECT_EQ(Enter(1, &first), absl::ZeroDuration());
  EXPECT_EQ(Enter(1, &second), absl::ZeroDuration());
  EXPECT_EQ(Room(), absl::Seconds(1));
  After(absl::Seconds(20));
  second.End(1, 1);
  EXPECT_EQ(Room(), absl::ZeroDuration());
  EXPECT_EQ(Enter(1, &second), absl::ZeroDuration());
  EXPECT_EQ(Room(), absl::Seconds(10));  // two run, one takes 20 s
  EXPECT_EQ(Enter(1, &third), absl::Seconds(10));
  EXPECT_EQ(Use().over_requests, 3);
  EXPECT_TRUE(tenants_->CheckRoom("other").ok());  // the server's own limit holds for those without one
  const auto theirs = tenants_->Enter("other", 1);
  EXPECT_EQ(Wait(tenants_->CheckRoom("other")), absl::Seconds(1));
}

TEST_F(TenantsTest, HeadersSayWhatIsLeft) {
  Keys("rate=2 burst=5 tokens_per_minute=600");
  Tenants::Pass pass;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(TakeRequest(), absl::ZeroDuration());
  EXPECT_EQ(Enter(150, &pass), absl::ZeroDuration());
  const RateLimits left = tenants_->Remaining("t");
  ASSERT_TRUE(left.requests.has_value() && left.tokens.has_value());
  EXPECT_EQ(left.requests->limit, 5);
  EXPECT_EQ(left.requests->remaining, 2);
  EXPECT_EQ(left.requests->reset, absl::Milliseconds(1500));
  EXPECT_EQ(left.tokens->limit, 600);
  EXPECT_EQ(left.tokens->remaining, 450);
  EXPECT_EQ(left.tokens->reset, absl::Seconds(15));
  EXPECT_FALSE(tenants_->Remaining("other").requests.has_value());
}

TEST_F(TenantsTest, AReloadKeepsWhatWasUsed) {
  Keys("rate=1 burst=10 tokens_per_minute=600");
  Tenants::Pass running;
  for (int i = 0; i < 8; ++i) EXPECT_EQ(TakeRequest(), absl::ZeroDuration());
  EXPECT_EQ(Enter(500, &running), absl::ZeroDuration());
  Keys("rate=1 burst=10 tokens_per_minute=600");
  EXPECT_EQ(tenants_->Remaining("t").requests->remaining, 2);
  EXPECT_EQ(tenants_->Remaining("t").tokens->remaining, 100);
  EXPECT_EQ(Use().running, 1);
  Keys("weight=7 rate=1 burst=20 tokens_per_minute=400");
  EXPECT_EQ(tenants_->Limits("t").weight, 7);
  EXPECT_EQ(tenants_->Remaining("t").requests->remaining, 12);
  EXPECT_EQ(tenants_->Remaining("t").tokens->remaining, 0);  // 100 too many
  running.End(100, 100);
  EXPECT_EQ(tenants_->Remaining("t").tokens->remaining, 200);
  EXPECT_EQ(Use().generation_tokens, 100);
  Keys("");
  EXPECT_FALSE(tenants_->Remaining("t").tokens.has_value());
  EXPECT_EQ(Use().requests, 1);
}

TEST_F(TenantsTest, WhoLeavesTheFileIsForgottenWhenItsLastRequestHasEnded) {
  Keys("");
  Tenants::Pass running;
  EXPECT_EQ(Enter(10, &running), absl::ZeroDuration());
  EXPECT_TRUE(tenants_->Authenticate("Bearer key").ok());
  tenants_->Reload(*ApiKeys::Parse("other-key other\n"));
  EXPECT_EQ(tenants_->Authenticate("Bearer key").status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Use().running, 1);
  running.End(5, 5);
  EXPECT_EQ(Use().generation_tokens, 5);
  tenants_->Reload(*ApiKeys::Parse("other-key other\n"));
  EXPECT_EQ(Use().label, "");
}

TEST_F(TenantsTest, LabelsAreBounded) {
  std::string file;
  for (int i = 0; i < 300; ++i) absl::StrAppend(&file, "key-", i, " tenant-", i, "\n");
  Tenants tenants(*ApiKeys::Parse(file), 0, [] { return now; });
  for (int i = 0; i < 300; ++i) {
    auto pass = tenants.Enter(*tenants.Authenticate(absl::StrCat("Bearer key-", i)), 10);
    ASSERT_TRUE(pass.ok());
    pass->End(4, 1);
  }
  const std::vector<TenantUse> all = tenants.Use();
  EXPECT_EQ(all.size(), Tenants::kMaxLabels + 1);
  EXPECT_EQ(all[0].label, Tenants::kOtherTenants);
  EXPECT_EQ(all[0].requests, 300 - static_cast<int>(Tenants::kMaxLabels));
}

}  // namespace
}  // namespace sessa
