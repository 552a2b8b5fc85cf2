#include "kernels/cuda/shared_tiles.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/shared_reads.h"

namespace sessa::cuda {
namespace {

// The blocks of one group of heads. Heads have the same rows, so one search does for all of them.
class HeadBlocks {
 public:
  explicit HeadBlocks(const ReadPlanOptions& options) : options_(options) {}

  void Find(absl::Span<const ReadBlock> blocks) {
    std::vector<RowSpan> rows;
    for (const ReadBlock& b : blocks) {
      rows.push_back(
          {b.first_row, b.num_rows, b.start, options_.spans[options_.row_span[b.first_row]].pages});
    }
    const auto is_same = [](const RowSpan& a, const RowSpan& b) {
      return a.first_row == b.first_row && a.num_rows == b.num_rows;
    };
    if (std::ranges::equal(rows, rows_, is_same)) return;
    rows_ = std::move(rows);
    reads_.Find(rows_, options_.page_size);
  }
  const SharedReads& reads() const { return reads_; }

 private:
  const ReadPlanOptions& options_;
  std::vector<RowSpan> rows_;
  SharedReads reads_;
};

// The reads of `reads`, cut up so that a kernel takes the queries, evenly.
void AddShared(const SharedReads& reads, absl::Span<const ReadBlock> blocks, int max_queries,
               ReadGroup* group, ReadPlan* plan) {
  const ReadBlock& any = blocks[0];
  std::vector<SharedRow> places(reads.num_shared_rows());
  std::vector<const ReadBlock*> block_of(places.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const ReadBlock& b = blocks[i];
    if (reads.own_tile(static_cast<int>(i)) == 0) continue;
    for (int r = 0; r < b.num_rows; ++r) {
      const int at = reads.first_row(static_cast<int>(i)) + r;
      places[at] = {b.first_row + r, b.num_rows * b.num_heads, b.tile_base + int64_t{r} * b.num_heads};
      block_of[at] = &b;
    }
  }
  const int max_rows = max_queries / any.num_heads;
  for (int level = 0; level < reads.num_levels(); ++level) {
    for (const SharedRead& read : reads.level(level)) {
      const int parts = CeilDiv(read.num_rows, max_rows);
      for (int part = 0; part < parts; ++part) {
        const int first = read.first_row + read.num_rows * part / parts,
                  end = read.first_row + read.num_rows * (part + 1) / parts;
        ReadBlock shared = {};
        shared.first_row = static_cast<int>(plan->shared_rows.size());
        shared.num_rows = end - first;
        shared.start = read.last_tile * kTile;  // its rows see all before
        shared.first_head = any.first_head, shared.num_heads = any.num_heads, shared.kv = any.kv;
        shared.pages = block_of[first]->pages;
        shared.first_tile = read.first_tile;
        shared.first_item = group->num_items;
        shared.zero_item = group->num_items - read.first_tile;
        plan->shared_rows.insert(plan->shared_rows.end(), places.begin() + first, places.begin() + end);
        plan->shared.push_back(shared);
        group->num_items += read.last_tile - read.first_tile;
        group->tile_queries = std::max(group->tile_queries, shared.num_rows * shared.num_heads);
      }
    }
  }
}

}  // namespace

void ShareTiles(const ReadPlanOptions& options, ReadGroup* group, ReadPlan* plan) {
  const absl::Span<ReadBlock> blocks = absl::MakeSpan(plan->blocks).subspan(group->first, group->count);
  const int max_queries = MaxFewQueries(options.dim);
  const auto end_of_heads = [&](size_t begin) {
    size_t end = begin;
    while (end < blocks.size() && blocks[end].first_head == blocks[begin].first_head) ++end;
    return end;
  };
  const auto sees_all = [](const ReadBlock& b) { return b.first_tile == 0; };
  static_assert(MaxFewQueries(4096) == 8 && MaxFewQueries(4097) == 1);
  if (!std::ranges::all_of(blocks, sees_all) || !GpuSharesReads(blocks[0].num_heads, options.dim)) return;
  HeadBlocks heads(options);
  int num_items = 0;
  for (size_t begin = 0, end; begin < blocks.size(); begin = end) {
    end = end_of_heads(begin);
    heads.Find(blocks.subspan(begin, end - begin));
    for (size_t i = begin; i < end; ++i) {
      ReadBlock& b = blocks[i];
      const int tiles = CeilDiv(b.start + b.num_rows - (options.feedback ? 1 : 0), kTile),
                own_tile = heads.reads().own_tile(static_cast<int>(i - begin));
      b.first_item = num_items;
      b.zero_item = num_items - own_tile;
      num_items += tiles - own_tile;
    }
  }
  group->own_items = group->num_items = num_items;
  group->first_shared = static_cast<int>(plan->shared.size());
  for (size_t begin = 0, end; begin < blocks.size(); begin = end) {
    end = end_of_heads(begin);
    heads.Find(blocks.subspan(begin, end - begin));
    AddShared(heads.reads(), blocks.subspan(begin, end - begin), max_queries, group, plan);
  }
  group->num_shared = static_cast<int>(plan->shared.size()) - group->first_shared;
}

}  // namespace sessa::cuda
