// How reads are cut up on the host: pure functions.
#include "kernels/cuda/read_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace sessa {
namespace {

TEST(DecodeBucketTest, GrowsByHalves) {
  std::vector<int> buckets;
  for (int n = 1; n <= cuda::kMaxDecodeBucket; ++n) {
    const int bucket = cuda::DecodeBucket(n);
    EXPECT_EQ(cuda::DecodeBucket(bucket), bucket) << n;
    EXPECT_GE(bucket, n);
    EXPECT_LE(bucket, n + n / 2);
    if (buckets.empty() || buckets.back() != bucket) buckets.push_back(bucket);
  }
  EXPECT_EQ(buckets,
            (std::vector<int>{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512}));
  EXPECT_EQ(cuda::DecodeBucket(513), 513);
}

// Every small tile is in one run, and no thread block has more to read than its share and one tile.
TEST(FewReadsTest, RunsAreEven) {
  for (int num_blocks : {1, 2, 3, 132, 264}) {
    for (int num_large : {0, 1, 32, 200, 264, 500, 5000}) {
      for (int num_small : {0, 1, 100, 2048, 30000}) {
        for (float large : {64.0f, 1024.0f}) {
          const float small = 64, total = num_large * large + num_small * small;
          const auto begin = [&](int i) {
            return cuda::BeginOfRun(i, num_blocks, num_large, large, num_small, small);
          };
          ASSERT_EQ(begin(0), 0);
          ASSERT_EQ(begin(num_blocks), num_small);
          for (int i = 0; i < num_blocks; ++i) {
            ASSERT_LE(begin(i), begin(i + 1));
            const int own = num_large / num_blocks + (i < num_large % num_blocks);
            ASSERT_LE(own * large + (begin(i + 1) - begin(i)) * small,
                      total / num_blocks + std::max(large, 2 * small))
                << num_blocks << " blocks, " << num_large << " large, " << num_small << " small, block " << i;
          }
        }
      }
    }
  }
}

// Tokens that were guessed ahead: a tile is an item once for all rows of its sequence.
TEST(ReadPlanTest, SeveralRowsOfASequenceAreOneRead) {
  const std::vector<int32_t> pages(20);
  const std::vector<RowSpan> spans = {{0, 5, 290, pages}, {5, 1, 70, pages}};
  for (auto [heads, path] : {std::pair{1, cuda::ReadPath::kFewQueries}, {4, cuda::ReadPath::kManyQueries}}) {
    const std::vector<int> q_to_kv(heads);  // one head of keys
    const auto plan = cuda::MakeReadPlan(
        cuda::AttentionBlocks(spans, {pages.data(), pages.data()}, q_to_kv, cuda::kMaxQueries, 0),
        {.dim = 64, .max_floats = int64_t{1} << 40});
    int items = 0;
    for (const cuda::ReadGroup& g : plan.groups) items += g.num_items;
    EXPECT_EQ(items, 5 + 2);
    const auto five = std::ranges::find(plan.blocks, 5, &cuda::ReadBlock::num_rows);
    ASSERT_NE(five, plan.blocks.end());
    EXPECT_EQ(
        plan.groups[five >= plan.blocks.begin() + plan.groups.back().first ? plan.groups.size() - 1 : 0].path,
        path);
  }
}

// Four sequences that begin alike, a fifth that leaves them after a tile, one of another kind, and one that
// begins as they do and ends within the first tile.
class SharedTilesTest : public testing::Test {
 protected:
  static constexpr int kPage = 16, kPages = 4;  // of a tile

  cuda::ReadPlan Plan(int heads, int kv_heads, bool feedback, int window = 0) {
    const int num_tiles[] = {3, 3, 3, 3, 1, 0, 1}, starts[] = {259, 256, 200, 300, 259, 259, 30};
    pages_.assign(7, {});
    spans_.clear();
    row_span_.clear();
    for (int i = 0; i < 7; ++i) {
      for (int p = 0; p < 5 * kPages; ++p) pages_[i].push_back(p < num_tiles[i] * kPages ? p : 1000 * i + p);
      spans_.push_back({i, 1, starts[i], pages_[i]});
      row_span_.push_back(i);
    }
    std::vector<const int32_t*> device;
    for (const auto& pages : pages_) device.push_back(pages.data());
    std::vector<int> q_to_kv(heads);
    for (int h = 0; h < heads; ++h) q_to_kv[h] = h * kv_heads / heads;
    return cuda::MakeReadPlan(cuda::AttentionBlocks(spans_, device, q_to_kv, cuda::kMaxQueries, window),
                              {.feedback = feedback,
                               .dim = 64,
                               .max_floats = int64_t{1} << 40,
                               .min_blocks = 12,
                               .spans = spans_,
                               .row_span = row_span_,
                               .page_size = kPage});
  }

  std::vector<std::vector<int32_t>> pages_;
  std::vector<RowSpan> spans_;
  std::vector<int32_t> row_span_;
};

TEST_F(SharedTilesTest, EachTileIsReadOnce) {
  const cuda::ReadPlan plan = Plan(1, 1, /*feedback=*/true);
  ASSERT_EQ(plan.groups.size(), 1);
  const cuda::ReadGroup& g = plan.groups[0];
  // Whole tiles: of 259 rows 5 begin, of 256 as a feedback 4, of 200 4, of 300
  // 5, of 30 one.
  EXPECT_EQ(g.own_items, 2 + 1 + 1 + 2 + 4 + 5 + 1);
  EXPECT_EQ(g.num_items,
            g.own_items + 1 + 2);  // the first tile for five, two more for four
  EXPECT_EQ(g.num_shared, 2);
  EXPECT_EQ(g.tile_queries, 5);
  EXPECT_EQ(g.max_queries, 1);
  EXPECT_EQ(g.num_tiles, 5 + 4 + 4 + 5 + 5 + 5 + 1) << "the scratch is that of reads alone";
  ASSERT_EQ(plan.shared_rows.size(), 5 + 4);
  for (const cuda::SharedRow& row : plan.shared_rows) {
    const auto own = std::ranges::find(plan.blocks, row.row, &cuda::ReadBlock::first_row);
    EXPECT_EQ(row.tile_base, own->tile_base);
    EXPECT_EQ(row.stride, 1);
  }
  // Items ascend, and each has its tile.
  EXPECT_EQ(plan.blocks.size(), 12);
  for (size_t i = 1; i < plan.blocks.size(); ++i)
    EXPECT_GE(plan.blocks[i].first_item, plan.blocks[i - 1].first_item);
  EXPECT_EQ(plan.shared[0].first_item, g.own_items);
  EXPECT_EQ(plan.shared[1].first_item - plan.shared[1].zero_item, 1);
}

TEST_F(SharedTilesTest, HeadsOfFewRowsAndManyParts) {
  const cuda::ReadPlan plan = Plan(8, 2, /*feedback=*/false);  // 4 queries a row: two rows a part
  const cuda::ReadGroup& g = plan.groups[0];
  EXPECT_EQ(g.tile_queries, 8);
  EXPECT_EQ(g.num_shared, 2 * (3 + 2));
  EXPECT_EQ(g.num_items - g.own_items, 2 * (3 * 1 + 2 * 2));
  for (const cuda::ReadBlock& b : plan.shared) EXPECT_LE(b.num_rows, 2);
  EXPECT_EQ(Plan(8, 1, false).groups[0].num_shared, 0) << "8 queries of one row are all that is taken";
  EXPECT_EQ(Plan(8, 2, false, /*window=*/100).groups[0].num_shared, 0);
}

}  // namespace
}  // namespace sessa
