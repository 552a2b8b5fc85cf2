#include <algorithm>

#include "kernels/backend.h"
#include "kernels/cuda/panel.h"

namespace sessa::cuda {
namespace {

static_assert(kChains == kFeedbackChains);

// Of a launch, all blocks together, in passes of one block.
constexpr int kLaunchPasses = 2;

// Of a ReadBlock or a PanelBlock: query tiles, and rows in the panels.
template <class Block>
int QueryTiles(const Block& b) {
  return NumQueryTiles(b.num_rows * b.num_heads);
}
template <class Block>
int64_t PanelRows(const Block& b) {
  return int64_t{QueryTiles(b)} * kPanelQueries;
}

PanelBlock Start(const ReadBlock& b, int64_t panel_row) {
  PanelBlock p = {};
  p.first_row = b.first_row, p.num_rows = b.num_rows, p.start = b.start;
  p.first_head = b.first_head, p.num_heads = b.num_heads, p.kv = b.kv;
  p.wave_row = b.wave_row;
  p.pages = b.pages;
  p.panel_row = panel_row;
  p.num_splits = 1;
  p.is_last_pass = true;
  return p;
}

// Adds the block to the plan's last pass.
void Append(PanelBlock block, PanelPlan* plan) {
  PanelPass& pass = plan->passes.back();
  const int query_tiles = QueryTiles(block);
  const int64_t padded = PanelRows(block);
  block.first_item = pass.num_items;
  block.first_query_tile = pass.num_query_tiles;
  if (pass.count > 0) {
    const PanelBlock& before = plan->blocks.back();
    block.weights = before.weights + PanelRows(before) * before.num_tiles * kPanelKeys;
    block.stats = before.stats + PanelRows(before) * before.num_tiles * 2;
  }
  ++pass.count;
  pass.num_items += query_tiles * block.num_tiles;
  pass.num_query_tiles += query_tiles;
  pass.max_splits = std::max(pass.max_splits, block.num_splits);
  plan->num_weights = std::max(plan->num_weights, block.weights + padded * block.num_tiles * kPanelKeys);
  plan->num_stats = std::max(plan->num_stats, block.stats + padded * block.num_tiles * 2);
  plan->blocks.push_back(block);
}

void BeginPass(PanelPlan* plan) { plan->passes.push_back({.first = static_cast<int>(plan->blocks.size())}); }

}  // namespace

PanelPlan MakeOwnPanelPlan(const std::vector<ReadBlock>& blocks) {
  PanelPlan plan;
  if (blocks.empty()) return plan;
  BeginPass(&plan);
  for (const ReadBlock& b : blocks) {
    PanelBlock p = Start(b, plan.panel_rows);
    p.num_tiles = CeilDiv(b.num_rows, kPanelKeys);
    Append(p, &plan);
    plan.panel_rows += PanelRows(b);
  }
  return plan;
}

PanelPlan MakePanelPlan(const std::vector<ReadBlock>& blocks, const PanelPlanOptions& options) {
  PanelPlan plan;
  // Key tiles of a rank: whole rounds of the chains, of which the rank has its share.
  const auto num_tiles = [&](const ReadBlock& b) {
    const int64_t keys = options.feedback ? b.start : b.start + b.num_rows;
    const int64_t round = int64_t{kTile} * kChains;
    const int64_t own = options.num_ranks == 1 ? keys : CeilDiv(keys, round) * (round / options.num_ranks);
    return static_cast<int>(CeilDiv(own, kPanelKeys));
  };
  const auto pass_tiles = [&](const ReadBlock& b) { return std::max(1, options.pass_tiles / QueryTiles(b)); };
  const int64_t launch_weights = int64_t{kLaunchPasses} * options.pass_tiles * kPanelQueries * kPanelKeys;
  const int column_tiles = CeilDiv(options.dim, kPanelColumns);
  for (size_t first = 0, end; first < blocks.size(); first = end) {  // a group of blocks after another
    int64_t weights = 0;
    int num_passes = 1;
    for (end = first; end < blocks.size(); ++end) {
      const ReadBlock& b = blocks[end];
      const int64_t own = int64_t{std::min(num_tiles(b), pass_tiles(b))} * kPanelKeys * PanelRows(b);
      if (end > first && weights + own > launch_weights) break;
      weights += own;
      num_passes = std::max(num_passes, (num_tiles(b) + pass_tiles(b) - 1) / pass_tiles(b));
    }
    for (int pass = 0; pass < num_passes; ++pass) {
      BeginPass(&plan);
      int64_t panel_row = plan.panel_rows;
      for (size_t i = first; i < end; ++i) {
        const ReadBlock& b = blocks[i];
        const int tiles = num_tiles(b), most = pass_tiles(b);
        if (pass == 0 || pass * most < tiles) {
          PanelBlock p = Start(b, panel_row);
          p.pass = pass;
          p.first_tile = pass * most;
          p.num_tiles = std::min(most, tiles - p.first_tile);
          p.is_last_pass = p.first_tile + p.num_tiles == tiles;
          if (options.feedback) {
            p.num_splits = std::clamp(options.full_device / (QueryTiles(b) * column_tiles), 1,
                                      kChains / options.num_ranks);
          }
          Append(p, &plan);
        }
        panel_row += PanelRows(b);
      }
    }
    for (size_t i = first; i < end; ++i) plan.panel_rows += PanelRows(blocks[i]);
  }
  return plan;
}

PanelRead OfPass(PanelRead read, const PanelPlan& plan, const PanelPass& pass) {
  read.panel_rows = plan.panel_rows;
  read.blocks = plan.device_blocks + pass.first;
  read.num_blocks = pass.count;
  return read;
}

}  // namespace sessa::cuda
