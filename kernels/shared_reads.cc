#include "kernels/shared_reads.h"

#include <algorithm>
#include <numeric>

#include "kernels/tile.h"

namespace sessa {

// Tiles that all rows of a block see to the end.
int SharedReads::WholeTiles(int block) const {
  const RowSpan& b = blocks_[block];
  return b.num_rows > kMaxBlockRows ? 0 : b.start / kTileTokens;
}

absl::Span<const int32_t> SharedReads::PagesOf(int block, int tile) const {
  return blocks_[block].pages.subspan(tile * pages_of_tile_, pages_of_tile_);
}

void SharedReads::Find(absl::Span<const RowSpan> blocks, int page_size) {
  blocks_ = blocks;
  pages_of_tile_ = kTileTokens / page_size;
  const int n = static_cast<int>(blocks.size());
  order_.resize(n);
  std::iota(order_.begin(), order_.end(), 0);
  own_tiles_.assign(n, 0);
  levels_.clear();
  Split(0, n, 0, 0, 0);
  // Who shares nothing goes behind those who do; the order is the same on every rank, as the tables are.
  const auto shares = [this](int block) { return own_tiles_[block] > 0; };
  std::vector<int> from(n + 1);  // where an index of order_ goes, in rows
  num_shared_rows_ = 0;
  for (int b : order_) num_shared_rows_ += shares(b) ? blocks[b].num_rows : 0;
  first_rows_.resize(n);
  int shared = 0, alone = num_shared_rows_;
  for (int i = 0; i < n; ++i) {
    int& next = shares(order_[i]) ? shared : alone;
    from[i] = shared;
    first_rows_[order_[i]] = next;
    next += blocks[order_[i]].num_rows;
  }
  from[n] = shared;
  rows_.resize(alone);
  for (int b = 0; b < n; ++b) {
    for (int r = 0; r < blocks[b].num_rows; ++r)
      rows_[first_rows_[b] + r] = {blocks[b].first_row + r, blocks[b].start + r};
  }
  for (std::vector<SharedRead>& level : levels_) {
    for (SharedRead& read : level) {  // until here its rows are a range of order_
      const int begin = read.first_row, end = begin + read.num_rows;
      read.first_row = from[begin], read.num_rows = from[end] - from[begin];
    }
  }
}

int64_t SharedReads::num_saved_tokens() const {
  int64_t tiles = std::accumulate(own_tiles_.begin(), own_tiles_.end(), int64_t{0});
  for (const std::vector<SharedRead>& level : levels_) {
    for (const SharedRead& read : level) tiles -= read.last_tile - read.first_tile;
  }
  return tiles * kTileTokens;
}

void SharedReads::Split(int begin, int end, int read_tile, int tile, int level) {
  if (end - begin < 2) return;
  const int first = order_[begin];
  int common = WholeTiles(first);
  for (int i = begin + 1; i < end && common > tile; ++i) {
    common = std::min(common, WholeTiles(order_[i]));
    const absl::Span<const int32_t> a = blocks_[first].pages, b = blocks_[order_[i]].pages;
    const auto from = a.begin() + tile * pages_of_tile_;
    const auto parted = std::mismatch(from, a.begin() + std::max(tile, common) * pages_of_tile_,
                                      b.begin() + tile * pages_of_tile_);
    common = std::min(common, static_cast<int>(parted.first - a.begin()) / pages_of_tile_);
  }
  if (common > read_tile) {
    if (level == num_levels()) levels_.emplace_back();
    levels_[level++].push_back({read_tile, common, begin, end - begin, blocks_[first].pages.data()});
    for (int i = begin; i < end; ++i) own_tiles_[order_[i]] = common;
    read_tile = common;
  }
  tile = std::max(tile, common);
  const auto ended = [&](int block) { return WholeTiles(block) <= tile; };
  std::sort(order_.begin() + begin, order_.begin() + end, [&](int a, int b) {
    if (ended(a) || ended(b)) return ended(a) == ended(b) ? a < b : ended(b);
    const auto x = PagesOf(a, tile), y = PagesOf(b, tile);
    return x == y ? a < b : std::lexicographical_compare(x.begin(), x.end(), y.begin(), y.end());
  });
  for (int next; begin < end && !ended(order_[begin]); begin = next) {
    for (next = begin + 1;
         next < end && !ended(order_[next]) && PagesOf(order_[next], tile) == PagesOf(order_[begin], tile);)
      ++next;
    Split(begin, next, read_tile, tile, level);
  }
}

}  // namespace sessa
