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
  const SharedReads& reads = step_->ReadsOfWave(call.wave, call.keys->page_size);
  const int own = kFeedbackChains / call.num_ranks;
  MakeItems(call, reads);
  if (reads_.on_tiles(*call.keys)) {
    PackTiles();
  } else {
    Pack(reads_.dot && call.keys->shape.dtype == DType::kBF16);
  }
  int begin = 0;
  for (int end : levels_) {
    step_->pool()->ParallelFor((end - begin) * own, [&](int i, int thread) {
      ReadChain(call, reads, items_[begin + i / own], i % own * call.num_ranks + call.rank, thread);
    });
    begin = end;
  }
}

void CpuFeedback::MakeItems(const FeedbackReadCall& call, const SharedReads& reads) {
  const std::vector<RowSpan>& blocks = step_->rows().waves[call.wave];
  const Matrix q_b = call.q_b;
  const int dim = q_b.cols, own = kFeedbackChains / call.num_ranks;
  float* gathered = Grown(&gathered_, int64_t{dim} * reads.num_shared_rows());
  step_->ForRows(reads.num_shared_rows(), [&](int r) {
    std::copy_n(q_b.row(reads.rows()[r].batch_row), dim, gathered + int64_t{dim} * r);
  });
  items_.clear(), levels_.clear();
  for (int level = 0; level < reads.num_levels(); ++level) {
    const int num_reads = static_cast<int>(reads.level(level).size());
    for (const SharedRead& read : reads.level(level)) {
      const int parts = PartsOf(read.num_rows, kTile, CeilDiv(step_->num_threads(), own * num_reads));
      for (int i = 0; i < parts; ++i) {
        const int begin = read.num_rows * i / parts, rows = read.num_rows * (i + 1) / parts - begin,
                  row = read.first_row + begin;
        items_.push_back({nullptr,
                          row,
                          rows,
                          read.pages,
                          read.first_tile,
                          read.last_tile,
                          Matrix{gathered + int64_t{dim} * row, rows, dim, dim},
                          {}});
      }
    }
    levels_.push_back(static_cast<int>(items_.size()));
  }
  for (int i = 0; i < static_cast<int>(blocks.size()); ++i) {
    const RowSpan& block = blocks[i];
    items_.push_back({&block,
                      reads.first_row(i),
                      block.num_rows,
                      block.pages.data(),
                      reads.own_tile(i),
                      0,
                      q_b.Rows(block.first_row, block.first_row + block.num_rows),
                      {}});
  }
  levels_.push_back(static_cast<int>(items_.size()));
}

void CpuFeedback::ReadChain(const FeedbackReadCall& call, const SharedReads& reads, const Item& item,
                            int chain, int thread) {
  const FeedbackPartials out = call.partials;
  const int m = item.num_rows, dim = call.keys->shape.dim, joint = reads_.joint_tiles(*call.keys);
  const int64_t row = int64_t{chain} * out.rows + item.first_row;
  const cpu::SoftmaxState state{out.max + row, out.sum + row, out.acc + row * out.width, out.width};
  const auto cut = [&](int tile) { return cpu::CutOfChain(tile, chain, kFeedbackChains, joint); };
  const int tile = item.block != nullptr ? item.block->start / kTile : 0;  // the block's own
  const int first = cut(item.first_tile), last = item.block != nullptr ? tile : cut(item.last_tile);
  if (item.block == nullptr && first == last) return;
  int visible[kTile];
  for (int r = 0; r < m; ++r) visible[r] = reads.rows()[item.first_row + r].position;  // strictly the past
  cpu::AttendArgs args{item.query.rows,
                       item.q_b.stride,
                       m,
                       dim,
                       dim,
                       1.0f / std::sqrt(static_cast<float>(dim)),
                       visible,
                       first,
                       last,
                       kFeedbackChains};
  args.q_pairs = item.query.pairs;
  args.dot_tiles = last;
  args.begins = first == chain, args.ends = item.block != nullptr;
  if (args.begins) {
    std::fill(state.max, state.max + m, -std::numeric_limits<float>::infinity());
    std::fill(state.sum, state.sum + m, 0.0f);
    if (args.ends && chain > tile) return;
  }
  if (args.ends && tile % kFeedbackChains == chain) {  // the own chain
    args.last = tile + 1;
    args.probabilities = out.p + static_cast<int64_t>(item.first_row) * kTile;
    args.value_limit = item.block->start;  // later columns are the block's own, not solved yet
    std::fill_n(args.probabilities, m * kTile, 0.0f);
  }
  const cpu::PagedState pages = HeadOf(*call.keys, *call.states, 0, item.pages);
  if (reads_.on_tiles(*call.keys)) {
    float* sums = step_->Scratch(thread, cpu::TileAttendScratch(dim, out.width, call.keys->shape.dtype));
    return cpu::AttendOnTiles({reads_.unit, reads_.terms, item.query.tiles}, args, pages, state, sums);
  }
  if (args.begins) std::fill(state.acc, state.acc + static_cast<int64_t>(m) * out.width, 0.0f);
  cpu::AttendTiles(args, pages, state);
}

void CpuFeedback::Solve(const FeedbackSolveCall& call) {
  const FeedbackPartials& in = call.partials;
  const std::vector<RowSpan>& blocks = step_->rows().waves[call.wave];
  const SharedReads& reads = step_->ReadsOfWave(call.wave, call.states->page_size);
  constexpr int kSlab = cpu::kSolveSlab;  // columns of an item; columns never mix
  const int slabs = CeilDiv(call.end - call.begin, kSlab);
  step_->pool()->ParallelFor(static_cast<int>(blocks.size()) * slabs, [&](int item, int) {
    const RowSpan& block = blocks[item / slabs];
    const int row = reads.first_row(item / slabs), c = call.begin + item % slabs * kSlab,
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

void CpuFeedback::Pack(bool pairs) {
  int64_t size = 0, pairs_size = 0;
  for (const Item& item : items_) {
    size += item.num_rows > cpu::kFewRows ? cpu::PackedSize(item.num_rows, item.q_b.cols) : 0;
    pairs_size += pairs ? cpu::PackedPairs(item.num_rows, item.q_b.cols) : 0;
  }
  float* packed = Grown(&packed_, size);
  cpu::Bf16Pair* packed_pairs = Grown(&pairs_, pairs_size);
  pack_items_.clear();
  for (Item& item : items_) {
    const int m = item.num_rows;
    const bool pack = m > cpu::kFewRows;
    item.query = {pack ? packed : item.q_b.data, pairs ? packed_pairs : nullptr};
    for (int t = 0; t < cpu::NumRowTiles(m) && (pack || pairs); ++t)
      pack_items_.push_back({item.q_b, t, pack ? packed : nullptr, pairs ? packed_pairs : nullptr, nullptr});
    packed += pack ? cpu::PackedSize(m, item.q_b.cols) : 0;
    packed_pairs += pairs ? cpu::PackedPairs(m, item.q_b.cols) : 0;
  }
  RunPacking();
}

void CpuFeedback::PackTiles() {
  int64_t size = 0;
  for (const Item& item : items_) size += cpu::TiledSize(item.num_rows, item.q_b.cols, reads_.terms);
  uint16_t* tiles = GrownLines(&tiles_, size);
  pack_items_.clear();
  for (Item& item : items_) {
    item.query = {nullptr, nullptr, tiles};
    for (int t = 0; t < cpu::TilesOf(item.num_rows); ++t)
      pack_items_.push_back({item.q_b, t, nullptr, nullptr, tiles});
    tiles += cpu::TiledSize(item.num_rows, item.q_b.cols, reads_.terms);
  }
  RunPacking();
}

void CpuFeedback::RunPacking() {
  step_->pool()->ParallelFor(static_cast<int>(pack_items_.size()), [&](int i, int) {
    const auto& [x, t, to, pairs_to, tiles_to] = pack_items_[i];
    if (to != nullptr) cpu::PackRows(x.data, x.stride, x.rows, x.cols, t, t + 1, to);
    if (pairs_to != nullptr) cpu::PackPairs(x.data, x.stride, x.rows, x.cols, t, t + 1, pairs_to);
    if (tiles_to != nullptr) cpu::PackTiles(x.data, x.stride, x.rows, x.cols, reads_.terms, t, tiles_to);
  });
}

}  // namespace sessa
