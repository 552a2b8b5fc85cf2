// Which rows of a step read together (kernels/shared_reads.h): properties over random trees of page tables,
// and a few by hand.
#include "kernels/shared_reads.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "kernels/round.h"
#include "kernels/tile.h"

namespace sessa {
namespace {

struct Table {
  std::vector<int32_t> pages;
  int start, num_rows;
};

std::vector<RowSpan> BlocksOf(const std::vector<Table>& tables) {
  std::vector<RowSpan> blocks;
  int row = 0;
  for (const Table& t : tables) {
    blocks.push_back({row, t.num_rows, t.start, t.pages});
    row += t.num_rows;
  }
  return blocks;
}

// Whole tiles of both in which the tables are the same from the beginning on.
int TilesInCommon(const Table& a, const Table& b, int page_size) {
  if (std::max(a.num_rows, b.num_rows) > SharedReads::kMaxBlockRows) return 0;
  int page = 0;
  while (page < std::ssize(a.pages) && page < std::ssize(b.pages) && a.pages[page] == b.pages[page]) ++page;
  return std::min({page * page_size, a.start, b.start}) / kTileTokens;
}

TEST(SharedReadsTest, RandomTables) {
  std::mt19937 random(5);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  SharedReads reads;
  for (int round = 0; round < 500; ++round) {
    const int page_size = 16 << below(3);
    std::vector<Table> tables;
    int next_page = 0;
    for (int i = 0, n = below(20); i < n; ++i) {
      Table t;
      t.start = below(10) * kTileTokens + below(kTileTokens);
      t.num_rows = below(8) == 0 ? 1 + below(64) : 1 + below(3);
      if (i > 0 && below(4) > 0) {  // it begins as another one does
        t.pages = tables[below(i)].pages;
        t.pages.resize(below(static_cast<int>(t.pages.size()) + 1));
      }
      const int num_pages = CeilDiv(t.start + t.num_rows, page_size);
      t.pages.resize(std::min<size_t>(num_pages, t.pages.size()));
      while (std::ssize(t.pages) < num_pages) t.pages.push_back(next_page++);
      tables.push_back(t);
    }
    SCOPED_TRACE(testing::Message() << "round " << round << ", " << tables.size() << " tables");
    const std::vector<RowSpan> blocks = BlocksOf(tables);
    reads.Find(blocks, page_size);

    std::vector<int> block_of(reads.rows().size(), -1);  // by row of the reads
    int num_shared = 0;
    for (int b = 0; b < std::ssize(blocks); ++b) {
      for (int r = 0; r < blocks[b].num_rows; ++r) {
        const int row = reads.first_row(b) + r;
        ASSERT_LT(row, std::ssize(block_of));
        ASSERT_EQ(block_of[row], -1) << "a row of two blocks";
        block_of[row] = b;
        EXPECT_EQ(reads.rows()[row].batch_row, blocks[b].first_row + r);
        EXPECT_EQ(reads.rows()[row].position, blocks[b].start + r);
      }
      // Alone is read only what nobody else has.
      int shared = 0;
      for (int other = 0; other < std::ssize(blocks); ++other)
        shared = std::max(shared, other == b ? 0 : TilesInCommon(tables[b], tables[other], page_size));
      EXPECT_EQ(reads.own_tile(b), shared) << "block " << b;
      num_shared += shared > 0 ? blocks[b].num_rows : 0;
      EXPECT_EQ(reads.first_row(b) < reads.num_shared_rows(), shared > 0);
    }
    EXPECT_EQ(reads.num_shared_rows(), num_shared);

    std::vector<int> read_to(block_of.size());  // by row
    std::vector<int> levels(block_of.size());
    std::set<std::pair<int, int32_t>> tiles;  // that are read, by the page that they begin with
    for (int level = 0; level < reads.num_levels(); ++level) {
      EXPECT_FALSE(reads.level(level).empty());
      for (const SharedRead& read : reads.level(level)) {
        ASSERT_LT(read.first_tile, read.last_tile);
        std::set<int> of;
        for (int row = read.first_row; row < read.first_row + read.num_rows; ++row) {
          const Table& t = tables[block_of[row]];
          of.insert(block_of[row]);
          EXPECT_EQ(read_to[row], read.first_tile) << "a gap before a read, or two of one level";
          EXPECT_EQ(levels[row], level);
          read_to[row] = read.last_tile, levels[row] = level + 1;
          ASSERT_LE(read.last_tile * kTileTokens, t.start);
          EXPECT_TRUE(
              std::equal(read.pages, read.pages + read.last_tile * kTileTokens / page_size, t.pages.begin()));
        }
        EXPECT_GE(of.size(), 2u);
        for (int tile = read.first_tile; tile < read.last_tile; ++tile)
          EXPECT_TRUE(tiles.insert({tile, read.pages[tile * kTileTokens / page_size]}).second ||
                      page_size < kTileTokens)
              << "a tile is read twice";
      }
    }
    for (size_t row = 0; row < block_of.size(); ++row)
      EXPECT_EQ(read_to[row], reads.own_tile(block_of[row])) << "row " << row;
  }
}

TEST(SharedReadsTest, ASystemPromptAndTwoDocuments) {
  // Tiles 0 and 1 for all but the last; tiles 2 to 4 for 0 and 3, tile 2 for 1 and 2.
  const std::vector<Table> tables = {{{0, 1, 2, 3, 4, 5}, 330, 1}, {{0, 1, 6, 7}, 200, 2},
                                     {{0, 1, 6, 8}, 192, 1},       {{0, 1, 2, 3, 4, 9}, 321, 1},
                                     {{0, 1, 10}, 130, 1},         {{11, 12}, 100, 1}};
  SharedReads reads;
  reads.Find(BlocksOf(tables), 64);
  ASSERT_EQ(reads.num_levels(), 2);
  ASSERT_EQ(reads.level(0).size(), 1u);
  EXPECT_EQ(reads.level(0)[0].last_tile, 2);
  EXPECT_EQ(reads.level(0)[0].num_rows, 6);
  ASSERT_EQ(reads.level(1).size(), 2u);
  EXPECT_EQ(reads.level(1)[0].last_tile, 5);
  EXPECT_EQ(reads.level(1)[1].last_tile, 3);
  EXPECT_EQ(reads.level(1)[1].num_rows, 3);
  EXPECT_EQ(reads.own_tile(5), 0);
}

TEST(SharedReadsTest, NothingToShare) {
  SharedReads reads;
  for (const std::vector<Table>& tables : std::vector<std::vector<Table>>{
           {},
           {{{0, 1}, 100, 1}},
           {{{0, 1}, 100, 1}, {{2, 1}, 100, 1}},    // another first page: not the same prefix
           {{{0}, 63, 1}, {{0}, 63, 1}},            // no whole tile
           {{{0, 1}, 64, 64}, {{0, 2}, 64, 1}}}) {  // many rows read on their own
    reads.Find(BlocksOf(tables), 64);
    EXPECT_EQ(reads.num_levels(), 0);
    EXPECT_EQ(reads.num_shared_rows(), 0);
  }
}

}  // namespace
}  // namespace sessa
