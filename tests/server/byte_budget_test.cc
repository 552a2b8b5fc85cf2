#include "server/core/byte_budget.h"

#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace sessa {
namespace {

using Kind = ByteBudget::Kind;
using Lease = ByteBudget::Lease;

constexpr int64_t kFree = ByteBudget::kFreeBytes;
constexpr int64_t kMiB = 1 << 20;

TEST(ByteBudgetTest, TheFirstBytesOfEachAreFree) {
  ByteBudget budget(0);
  Lease lease(&budget, Kind::kInput);
  EXPECT_TRUE(lease.Resize(kFree));
  EXPECT_EQ(budget.used(), 0);
  EXPECT_FALSE(lease.Resize(kFree + 1));
  EXPECT_EQ(budget.num_refused(), 1);
  EXPECT_TRUE(Lease().Resize(1 << 30)) << "of no budget";
}

TEST(ByteBudgetTest, InputHasHalfOfIt) {
  ByteBudget budget(kMiB);
  Lease input(&budget, Kind::kInput), output(&budget, Kind::kOutput);
  EXPECT_FALSE(input.Resize(kFree + kMiB / 2 + 1));
  EXPECT_EQ(budget.used(), 0) << "nothing changes when it does not fit";
  EXPECT_TRUE(input.Resize(kFree + kMiB / 2));
  EXPECT_FALSE(output.Resize(kFree + kMiB / 2 + 1));
  EXPECT_TRUE(output.Resize(kFree + kMiB / 2));
  EXPECT_EQ(budget.used(), kMiB);
  EXPECT_TRUE(input.Resize(0)) << "less always fits";
  EXPECT_FALSE(input.Resize(2 * kFree)) << "what output holds counts too";
  output = Lease();
  EXPECT_EQ(budget.used(), 0);
}

TEST(ByteBudgetTest, MovesGiveBackOnce) {
  ByteBudget budget(kMiB);
  {
    Lease a(&budget, Kind::kOutput);
    ASSERT_TRUE(a.Resize(kMiB / 2));
    Lease b = std::move(a);
    Lease c(&budget, Kind::kOutput);
    ASSERT_TRUE(c.Resize(kMiB / 4));
    c = std::move(b);
    EXPECT_EQ(budget.used(), kMiB / 2 - kFree);
  }
  EXPECT_EQ(budget.used(), 0);
}

TEST(ByteBudgetTest, WhoHasBeenAtItForLongestGoesFirst) {
  ByteBudget budget(kMiB);
  std::vector<int> told;
  Lease first(&budget, Kind::kOutput), second(&budget, Kind::kOutput), later(&budget, Kind::kOutput);
  for (Lease* lease : {&first, &second, &later}) ASSERT_TRUE(lease->Resize(kFree + kMiB / 4));
  first.MayEvict(absl::ZeroDuration(), [&told] { told.push_back(1); });
  second.MayEvict(absl::ZeroDuration(), [&told] { told.push_back(2); });
  later.MayEvict(absl::Hours(1), [&told] { told.push_back(3); });
  Lease more(&budget, Kind::kOutput);
  EXPECT_TRUE(more.Resize(kFree + kMiB / 8));  // more than three quarters: one has to go, and that is enough
  EXPECT_EQ(told, std::vector<int>({1}));
  EXPECT_TRUE(more.Resize(kFree + kMiB / 4));
  EXPECT_EQ(told, std::vector<int>({1})) << "its bytes count as gone already";
  EXPECT_FALSE(more.Resize(kFree + kMiB / 2)) << "but are there still";
  EXPECT_EQ(told, std::vector<int>({1, 2}));
  EXPECT_FALSE(more.Resize(kFree + kMiB / 2));
  EXPECT_EQ(told, std::vector<int>({1, 2})) << "the third may stay for an hour";
  first = Lease();
  second = Lease();
  EXPECT_TRUE(more.Resize(kFree + kMiB / 2));
  EXPECT_EQ(budget.num_evicted(), 2);
}

TEST(ByteBudgetTest, WhoMayNotBeEvictedIsNot) {
  ByteBudget budget(kMiB);
  bool told = false;
  Lease lease(&budget, Kind::kOutput), more(&budget, Kind::kOutput);
  lease.MayEvict(absl::ZeroDuration(), [&told] { told = true; });
  EXPECT_TRUE(lease.Resize(kFree + kMiB)) << "nobody is evicted for itself";
  lease.MayNotEvict();
  EXPECT_FALSE(more.Resize(2 * kFree));
  EXPECT_FALSE(told);
}

TEST(ByteBudgetTest, ManyThreadsComeBackToZero) {
  ByteBudget budget(kMiB);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&budget, t] {
      for (int i = 0; i < 2000; ++i) {
        Lease lease(&budget, t % 2 ? Kind::kInput : Kind::kOutput);
        lease.Resize(kFree + (i * 7919 + t) % (kMiB / 2));
        lease.MayEvict(absl::ZeroDuration(), [] {});
        lease.Resize(kFree + (i * 104729) % kMiB);
        EXPECT_LE(budget.used(), kMiB);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget.used(), 0);
}

}  // namespace
}  // namespace sessa
