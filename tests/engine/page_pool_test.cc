#include "engine/page_pool.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace sessa {
namespace {

std::vector<int32_t> Tokens(int n, int first = 0) {
  std::vector<int32_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Allocates, registers and returns the pages of tokens' full pages, as a sequence would.
std::vector<int32_t> Fill(PagePool* pool, const std::vector<int32_t>& tokens, const char* salt = "") {
  std::vector<int32_t> pages;
  for (int i = 0; (i + 1) * pool->geometry().page_size() <= static_cast<int>(tokens.size()); ++i) {
    const int32_t page = pool->Allocate(i);
    if (page < 0) break;
    pages.push_back(pool->Register(
        page, i == 0 ? -1 : pages[i - 1],
        absl::MakeConstSpan(tokens).subspan(i * pool->geometry().page_size(), pool->geometry().page_size()),
        salt));
  }
  return pages;
}

TEST(PagePoolTest, HitCoversFullPagesOnly) {
  PagePool pool(PageGeometry(8, 16, 1));
  const auto tokens = Tokens(100);
  const auto pages = Fill(&pool, tokens);
  ASSERT_EQ(pages.size(), 6u);
  pool.Release(pages);
  EXPECT_EQ(pool.num_used_pages(), 0);
  for (auto [max_tokens, expected] :
       {std::pair{100, 6}, {96, 6}, {95, 5}, {17, 1}, {16, 1}, {15, 0}, {0, 0}}) {
    const auto hit = pool.Lookup(tokens, "", max_tokens);
    EXPECT_EQ(static_cast<int>(hit.size()), expected) << max_tokens;
    EXPECT_TRUE(std::equal(hit.begin(), hit.end(), pages.begin()));
    EXPECT_EQ(pool.num_used_pages(), expected);
    ASSERT_TRUE(pool.CheckInvariants().ok());
    pool.Release(hit);
  }
}

TEST(PagePoolTest, SaltAndEveryTokenCount) {
  PagePool pool(PageGeometry(8, 16, 1));
  const auto tokens = Tokens(32);
  pool.Release(Fill(&pool, tokens, "a"));
  EXPECT_TRUE(pool.Lookup(tokens, "b", 32).empty());
  EXPECT_TRUE(pool.Lookup(tokens, "", 32).empty());
  auto other = tokens;
  other[31] += 1;
  const auto hit = pool.Lookup(other, "a", 32);
  EXPECT_EQ(hit.size(), 1u);
  pool.Release(hit);
}

// With one bit of hash nearly everything collides: slower, never wrong.
TEST(PagePoolTest, CollisionsGiveNoWrongHit) {
  PagePool pool(PageGeometry(64, 16, 1));
  pool.SetHashMaskForTesting(1);
  std::vector<std::vector<int32_t>> prompts, pages;
  for (int i = 0; i < 10; ++i) {
    prompts.push_back(Tokens(48, i));
    pages.push_back(Fill(&pool, prompts.back()));
    ASSERT_TRUE(pool.CheckInvariants().ok()) << pool.CheckInvariants();
  }
  for (int i = 0; i < 10; ++i) {
    const auto hit = pool.Lookup(prompts[i], "", 48);
    EXPECT_EQ(hit, pages[i]);
    pool.Release(hit);
    pool.Release(pages[i]);
  }
  EXPECT_TRUE(pool.CheckInvariants().ok()) << pool.CheckInvariants();
}

TEST(PagePoolTest, TheSamePrefixIsKeptOnce) {
  PagePool pool(PageGeometry(8, 16, 1));
  const auto tokens = Tokens(32);
  const auto first = Fill(&pool, tokens), second = Fill(&pool, tokens);
  EXPECT_EQ(first, second);
  EXPECT_EQ(pool.num_used_pages(), 2);
  EXPECT_EQ(pool.num_references(first[0]), 2);
  pool.Release(first);
  pool.Release(second);
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

TEST(PagePoolTest, ReusesEmptyPagesThenTheOldestTail) {
  PagePool pool(PageGeometry(6, 16, 1));
  const auto a = Tokens(32), b = Tokens(32, 100);
  const auto pages_a = Fill(&pool, a), pages_b = Fill(&pool, b);
  pool.Release(pages_a);
  pool.Release(pages_b);
  const int32_t empty1 = pool.Allocate(0), empty2 = pool.Allocate(0);
  EXPECT_EQ(pool.num_indexed_pages(), 4);   // the empty ones went first
  EXPECT_EQ(pool.Allocate(0), pages_a[1]);  // then the tail of what was released longest ago
  auto hit = pool.Lookup(a, "", 32);
  EXPECT_EQ(hit.size(), 1u);
  pool.Release(hit);  // a's head is the newest now
  EXPECT_EQ(pool.Allocate(0), pages_b[1]);
  EXPECT_EQ(pool.Allocate(0), pages_b[0]);
  EXPECT_EQ(pool.Allocate(0), pages_a[0]);
  EXPECT_EQ(pool.Allocate(0), -1);
  EXPECT_EQ(pool.num_indexed_pages(), 0);
  EXPECT_NE(empty1, empty2);
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

TEST(PagePoolTest, ALostHeadTakesItsTailAlong) {
  PagePool pool(
      PageGeometry(2, 16, 2));  // one page of each class, so the tail is free, yet the head is the one reused
  EXPECT_EQ(pool.geometry().ClassCapacity(1), 1);
  PagePool one(PageGeometry(4, 64, 2));
  const auto tokens = Tokens(192);
  const auto pages = Fill(&one, tokens);
  ASSERT_EQ(pages.size(), 3u);
  EXPECT_EQ(one.ClassOfPage(pages[0]), 0);
  EXPECT_EQ(one.ClassOfPage(pages[1]), 1);
  EXPECT_EQ(one.ClassOfPage(pages[2]), 0);
  one.Release(pages);
  EXPECT_GE(one.Allocate(0), 0);  // pages[2]
  EXPECT_GE(one.Allocate(0), 0);  // pages[0], and pages[1] of the other class can never be found again
  EXPECT_EQ(one.num_indexed_pages(), 0);
  EXPECT_TRUE(one.CheckInvariants().ok()) << one.CheckInvariants();
}

// Who is told of what comes and goes knows the index: each page's tokens, and the page that they continue.
class Mirror : public CacheObserver {
 public:
  void OnStored(int32_t page, int32_t parent, absl::Span<const int32_t> tokens,
                std::string_view salt) override {
    EXPECT_TRUE(parent < 0 || pages_.count(parent) == 1);
    const Page stored = {parent, {tokens.begin(), tokens.end()}, parent < 0 ? std::string(salt) : ""};
    EXPECT_TRUE(pages_.insert({page, stored}).second) << page;
  }
  void OnRemoved(int32_t page) override { EXPECT_EQ(pages_.erase(page), 1u) << page; }

  // How many pages of these tokens are found.
  int Find(absl::Span<const int32_t> tokens, const std::string& salt) const {
    int32_t parent = -1;
    for (int found = 0;; ++found) {
      const auto next = std::find_if(pages_.begin(), pages_.end(), [&](const auto& entry) {
        const Page& page = entry.second;
        return page.parent == parent && (parent >= 0 || page.salt == salt) &&
               absl::MakeConstSpan(page.tokens) ==
                   tokens.subspan(found * page.tokens.size()).first(page.tokens.size());
      });
      if (next == pages_.end()) return found;
      parent = next->first;
      if ((found + 1) * next->second.tokens.size() == tokens.size()) return found + 1;
    }
  }
  int num_pages() const { return static_cast<int>(pages_.size()); }

 private:
  struct Page {
    int32_t parent;
    std::vector<int32_t> tokens;
    std::string salt;
  };
  std::map<int32_t, Page> pages_;
};

TEST(PagePoolTest, AnObserverKnowsTheIndex) {
  Mirror mirror;
  PagePool pool(PageGeometry(24, 16, 2), nullptr, &mirror);
  std::mt19937 rng(5);
  for (int i = 0; i < 2000; ++i) {
    // Few beginnings and many ends, so that some are found and the pool is always full.
    std::vector<int32_t> tokens = Tokens(16 * (1 + static_cast<int>(rng() % 5)), static_cast<int>(rng() % 4));
    if (rng() % 2 == 0) tokens.back() = static_cast<int32_t>(1000 + rng() % 50);
    const char* salt = rng() % 4 == 0 ? "tenant" : "";
    const int expected = mirror.Find(tokens, salt);
    const auto hit = pool.Lookup(tokens, salt, static_cast<int>(tokens.size()));
    ASSERT_EQ(static_cast<int>(hit.size()), expected);
    pool.Release(hit);
    pool.Release(Fill(&pool, tokens, salt));
    ASSERT_EQ(mirror.num_pages(), pool.num_indexed_pages());
  }
}

TEST(PageGeometryTest, ClassesFollowTiles) {
  for (int page_size : {16, 32, 64}) {
    for (int classes : {1, 2, 4, 8}) {
      const PageGeometry geometry(classes * 8, page_size, classes);
      for (int n = 0; n < 200; ++n) {
        int total = 0;
        for (int c = 0; c < classes; ++c) {
          int count = 0;
          for (int i = 0; i < n; ++i) count += geometry.ClassOfIndex(i) == c;
          ASSERT_EQ(geometry.CountOfClass(n, c), count);
          total += count;
        }
        ASSERT_EQ(total, n);
      }
      for (int pages = classes; pages < classes + 20; ++pages) {
        const PageGeometry odd(pages, page_size, classes);
        PagePool pool(odd);
        int most = 0;
        while (pool.Allocate(most) >= 0) ++most;
        EXPECT_EQ(odd.MaxPagesOfOneSequence(), most) << pages << " pages in " << classes << " classes";
        int in_classes = 0;
        for (int c = 0; c < classes; ++c) in_classes += odd.ClassCapacity(c);
        EXPECT_EQ(in_classes, pages);
      }
    }
  }
}

}  // namespace
}  // namespace sessa
