#include "kernels/cuda/read_plan.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/panel.h"
#include "kernels/cuda/shared_tiles.h"

namespace sessa::cuda {

ReadPlan MakeReadPlan(std::vector<ReadBlock> blocks, const ReadPlanOptions& options) {
  const auto queries = [](const ReadBlock& b) { return b.num_rows * b.num_heads; };
  const auto is_few = [&](const ReadBlock& b) { return queries(b) <= MaxFewQueries(options.dim); };
  // The grid's third dimension ends at 65535: the blocks of a group times their queries, where those are few.
  constexpr int kMaxGroupBlocks = 4096;
  ReadPlan plan;
  plan.blocks = std::move(blocks);
  std::stable_partition(plan.blocks.begin(), plan.blocks.end(), is_few);
  for (int i = 0; i < static_cast<int>(plan.blocks.size()); ++i) {
    ReadBlock& b = plan.blocks[i];
    const bool few = is_few(b);
    const int tiles = CeilDiv(b.start + b.num_rows - (options.feedback ? 1 : 0), kTile) - b.first_tile;
    const bool fused = options.tensor_cores && !options.feedback && options.dim <= kMaxFusedDim;
    const ReadPath path = few     ? ReadPath::kFewQueries
                          : fused ? ReadPath::kFusedAttention
                                  : ReadPath::kManyQueries;
    const int64_t of_tile = few ? queries(b) : kMaxQueries;
    const int64_t units = path == ReadPath::kFusedAttention ? 0 : tiles * of_tile;
    const int items = path == ReadPath::kFusedAttention ? 0 : tiles;
    const int64_t unit_floats = few ? Padded(options.dim) : kTile;
    if (plan.groups.empty() || plan.groups.back().path != path ||
        (plan.groups.back().num_tiles + units) * unit_floats > options.max_floats ||
        plan.groups.back().count == kMaxGroupBlocks) {
      plan.groups.push_back({path, i, 0, 0, 0, 0});
    }
    ReadGroup& g = plan.groups.back();
    b.tile_base = g.num_tiles - b.first_tile * of_tile;
    b.first_item = g.num_items;
    b.zero_item = g.num_items - b.first_tile;
    ++g.count;
    g.max_queries = std::max(g.max_queries, queries(b));
    g.num_items += items;
    g.num_tiles += units;
  }
  for (ReadGroup& g : plan.groups) {
    g.own_items = g.num_items;
    g.tile_queries = g.max_queries;
    if (g.path == ReadPath::kFewQueries && !options.spans.empty()) ShareTiles(options, &g, &plan);
  }
  if (plan.groups.size() == 1 && options.min_blocks <= kMaxGroupBlocks) {
    ReadGroup& g = plan.groups.back();
    ReadBlock padding = {};
    padding.first_item = g.own_items;
    for (; g.count < options.min_blocks; ++g.count) plan.blocks.push_back(padding);
  }
  return plan;
}

int DecodeBucket(int n) {
  if (n <= 0 || n > kMaxDecodeBucket) return n;
  int power = 1;
  while (power < n) power *= 2;
  return power >= 4 && n <= power / 4 * 3 ? power / 4 * 3 : power;
}

std::vector<ReadBlock> AttentionBlocks(absl::Span<const RowSpan> spans,
                                       absl::Span<const int32_t* const> pages, absl::Span<const int> q_to_kv,
                                       int max_queries, int window) {
  std::vector<ReadBlock> blocks;
  const int num_heads = static_cast<int>(q_to_kv.size());
  for (int h = 0, e; h < num_heads; h = e) {
    for (e = h; e < num_heads && q_to_kv[e] == q_to_kv[h] && e - h < max_queries; ++e) {
    }
    const int rows = max_queries / (e - h);
    for (size_t i = 0; i < spans.size(); ++i) {
      for (int r = 0; r < spans[i].num_rows; r += rows) {
        const int start = spans[i].start + r;
        const int first_seen = window == 0 ? 0 : std::max(0, start - window + 1);
        blocks.push_back({spans[i].first_row + r, std::min(rows, spans[i].num_rows - r), start, h, e - h,
                          q_to_kv[h], 0, pages[i], first_seen / kTile, 0, 0});
      }
    }
  }
  return blocks;
}

int MaxAttentionQueries(bool tensor_cores, int dim) {
  if (!tensor_cores) return kMaxQueries;
  return dim <= kMaxFusedDim ? kMaxFusedQueries : kMaxPanelQueries;
}

}  // namespace sessa::cuda
