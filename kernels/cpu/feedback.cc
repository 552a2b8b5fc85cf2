#include "kernels/cpu/feedback.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/tile_attention.h"

namespace sessa {

using cpu::kTile;
static_assert(cpu::kGroups == kFeedbackChains);

void CpuFeedback::Append(const AppendCall& forward, const FeedbackRows& rows) {
  const StepRows& step = step_->rows();
  step_->ForTokens(step.spans, forward.keys->page_size, [&](int row, int64_t page, int slot) {
    attention_->AppendRow(forward, row, page, slot);
    rows.gamma[row] =
        rows.gamma_max * std::tanh(*rows.gamma_bias->floats() +
                                   cpu::DotRow(rows.u.row(row), rows.gamma_ctx->floats(), rows.u.cols));
    if (rows.keys->Holds(page)) StoreToken(rows.k_b.row(row), rows.keys, page, slot);
  });
}

void CpuFeedback::AppendStates(Matrix s, int wave, PagedTensor* states) {
  step_->ForTokens(step_->rows().waves[wave], states->page_size, [&](int row, int64_t page, int slot) {
    if (states->Holds(page)) StoreToken(s.row(row), states, page, slot);
  });
}

void CpuFeedback::Read(const FeedbackReadCall& call) {
  const Matrix q_b = call.q_b;
  const int rank = call.rank, num_ranks = call.num_ranks, dim = call.keys->shape.dim;
  const FeedbackPartials out = call.partials;
  const std::vector<RowSpan>& blocks = step_->rows().waves[call.wave];
  const absl::Span<const int> first_rows = step_->FirstRows(blocks);
  const int own = kFeedbackChains / num_ranks;
  const bool on_tiles = reads_.on_tiles(*call.keys);
  const absl::Span<const Query> queries =
      on_tiles ? PackTiles(q_b, blocks)
               : Pack(q_b, blocks, reads_.dot && call.keys->shape.dtype == DType::kBF16);
  step_->pool()->ParallelFor(static_cast<int>(blocks.size()) * own, [&](int item, int thread) {
    const int chain = item % own * num_ranks + rank, wave_row = first_rows[item / own];
    const RowSpan& block = blocks[item / own];
    const int tile = block.start / kTile;  // the block's own tile
    float* max = out.max + chain * out.rows + wave_row;
    float* sum = out.sum + chain * out.rows + wave_row;
    float* acc = out.acc + (static_cast<int64_t>(chain) * out.rows + wave_row) * out.width;
    std::fill(max, max + block.num_rows, -std::numeric_limits<float>::infinity());
    std::fill(sum, sum + block.num_rows, 0.0f);
    if (chain > tile) return;
    const bool own_chain = tile % kFeedbackChains == chain;
    int visible[kTile];
    for (int r = 0; r < block.num_rows; ++r) visible[r] = block.start + r;  // strictly the past
    cpu::AttendArgs args{queries[item / own].rows,
                         q_b.stride,
                         block.num_rows,
                         dim,
                         dim,
                         1.0f / std::sqrt(static_cast<float>(dim)),
                         visible,
                         chain,
                         tile,
                         kFeedbackChains};
    args.q_pairs = queries[item / own].pairs;
    args.dot_tiles = tile;
    if (own_chain) {
      args.last = tile + 1;
      args.probabilities = out.p + static_cast<int64_t>(wave_row) * kTile;
      args.value_limit = block.start;  // later columns are the block's own, not solved yet
      std::fill_n(args.probabilities, block.num_rows * kTile, 0.0f);
    }
    const cpu::PagedState state = HeadOf(*call.keys, *call.states, 0, block.pages.data());
    if (on_tiles) {
      float* sums = step_->Scratch(thread, cpu::TileAttendScratch(dim, out.width, call.keys->shape.dtype));
      return cpu::AttendOnTiles({reads_.unit, reads_.terms, queries[item / own].tiles}, args, state,
                                {max, sum, acc, out.width}, sums);
    }
    std::fill(acc, acc + static_cast<int64_t>(block.num_rows) * out.width, 0.0f);
    cpu::AttendTiles(args, state, {max, sum, acc, out.width});
  });
}

void CpuFeedback::Solve(const FeedbackSolveCall& call) {
  const FeedbackPartials& in = call.partials;
  const std::vector<RowSpan>& blocks = step_->rows().waves[call.wave];
  const absl::Span<const int> first_rows = step_->FirstRows(blocks);
  constexpr int kSlab = cpu::kSolveSlab;  // columns of an item; columns never mix
  const int slabs = CeilDiv(call.end - call.begin, kSlab);
  step_->pool()->ParallelFor(static_cast<int>(blocks.size()) * slabs, [&](int item, int) {
    const RowSpan& block = blocks[item / slabs];
    const int row = first_rows[item / slabs], c = call.begin + item % slabs * kSlab,
              end = std::min(call.end, c + kSlab), owner = block.start / kTile % call.num_ranks;
    cpu::FeedbackSolve(
        {block.num_rows, block.start / kTile % kFeedbackChains, in.max + row, in.sum + row, in.rows,
         in.acc + static_cast<int64_t>(row) * in.width, static_cast<int64_t>(in.rows) * in.width, in.width,
         in.p + (static_cast<int64_t>(owner) * in.rows + row) * kTile, block.start % kTile,
         call.f.row(block.first_row), call.f.stride, call.gamma + block.first_row, call.states->shape.dtype,
         call.s.row(block.first_row), call.s.stride},
        c, end);
    for (int r = block.first_row; r < block.first_row + block.num_rows && call.g.data != nullptr; ++r)
      cpu::MultiplyRow(call.s.row(r) + c, call.g.row(r) + c, end - c, call.gated.row(r) + c);
  });
  if (call.append) AppendStates(call.s, call.wave, call.states);
}

absl::Span<const CpuFeedback::Query> CpuFeedback::Pack(Matrix x, absl::Span<const RowSpan> blocks,
                                                       bool pairs) {
  int64_t size = 0, pairs_size = 0;
  for (const RowSpan& block : blocks) {
    size += block.num_rows > cpu::kFewRows ? cpu::PackedSize(block.num_rows, x.cols) : 0;
    pairs_size += pairs ? cpu::PackedPairs(block.num_rows, x.cols) : 0;
  }
  float* packed = Grown(&packed_, size);
  cpu::Bf16Pair* packed_pairs = Grown(&pairs_, pairs_size);
  queries_.clear();
  pack_items_.clear();
  for (const RowSpan& block : blocks) {
    const int m = block.num_rows;
    const bool pack = m > cpu::kFewRows;
    queries_.push_back({pack ? packed : x.row(block.first_row), pairs ? packed_pairs : nullptr});
    for (int t = 0; t < cpu::NumRowTiles(m) && (pack || pairs); ++t)
      pack_items_.push_back({&block, t, pack ? packed : nullptr, pairs ? packed_pairs : nullptr, nullptr});
    packed += pack ? cpu::PackedSize(m, x.cols) : 0;
    packed_pairs += pairs ? cpu::PackedPairs(m, x.cols) : 0;
  }
  RunPacking(x);
  return queries_;
}

absl::Span<const CpuFeedback::Query> CpuFeedback::PackTiles(Matrix x, absl::Span<const RowSpan> blocks) {
  int64_t size = 0;
  for (const RowSpan& block : blocks) size += cpu::TiledSize(block.num_rows, x.cols, reads_.terms);
  uint16_t* tiles = GrownLines(&tiles_, size);
  queries_.clear();
  pack_items_.clear();
  for (const RowSpan& block : blocks) {
    queries_.push_back({nullptr, nullptr, tiles});
    for (int t = 0; t < cpu::TilesOf(block.num_rows); ++t)
      pack_items_.push_back({&block, t, nullptr, nullptr, tiles});
    tiles += cpu::TiledSize(block.num_rows, x.cols, reads_.terms);
  }
  RunPacking(x);
  return queries_;
}

void CpuFeedback::RunPacking(Matrix x) {
  step_->pool()->ParallelFor(static_cast<int>(pack_items_.size()), [&](int i, int) {
    const auto& [block, t, to, pairs_to, tiles_to] = pack_items_[i];
    const float* rows = x.row(block->first_row);
    const int m = block->num_rows;
    if (to != nullptr) cpu::PackRows(rows, x.stride, m, x.cols, t, t + 1, to);
    if (pairs_to != nullptr) cpu::PackPairs(rows, x.stride, m, x.cols, t, t + 1, pairs_to);
    if (tiles_to != nullptr) cpu::PackTiles(rows, x.stride, m, x.cols, reads_.terms, t, tiles_to);
  });
}

}  // namespace sessa
