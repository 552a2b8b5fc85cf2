#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/tile_attention.h"

namespace sessa {

using cpu::kPanel;
using cpu::kTile;
static_assert(cpu::kTile == kTileTokens);

void CpuAttention::Append(const AppendCall& call) {
  step_->ForTokens(step_->rows().spans, call.keys->page_size,
                   [&](int row, int64_t page, int slot) { AppendRow(call, row, page, slot); });
}

void CpuAttention::AppendRow(const AppendCall& call, int row, int64_t page, int slot) {
  if (call.q_norm != nullptr) {
    const int d = call.keys->shape.dim;
    for (auto [x, norm] : {std::pair{call.q, call.q_norm}, {call.k, call.k_norm}}) {
      for (int c = 0; c < x.cols; c += d)
        cpu::RmsNormRow(x.row(row) + c, norm->floats(), call.norm_eps, d, x.row(row) + c);
    }
  }
  step_->Rotate(row, call.q);
  step_->Rotate(row, call.k);
  StoreToken(call.k.row(row), call.keys, page, slot);
  StoreToken(call.v.row(row), call.values, page, slot);
}

void CpuAttention::MakeItems(const AttendCall& call, const SharedReads& reads) {
  const std::vector<RowSpan>& spans = step_->rows().spans;
  const bool on_tiles = reads_.on_tiles(*call.keys);
  const int num_heads = static_cast<int>(call.q_to_kv.size()), joint = reads_.joint_tiles(*call.keys);
  const auto cut = [joint](int tile) { return cpu::CutOfChain(tile, 0, 1, joint); };
  items_.clear(), levels_.clear(), head_ends_.clear();
  for (int h = 0; h < num_heads;) {
    const int begin = h;
    while (h < num_heads && call.q_to_kv[h] == call.q_to_kv[begin] && h - begin < kTile) ++h;
    head_ends_.push_back(h);
  }
  const auto for_heads = [&](auto body) {
    int begin = 0;
    for (int end : head_ends_) body(begin, end, std::max(1, kTile / (end - begin))), begin = end;
  };
  for (int level = 0; level < reads.num_levels(); ++level) {
    const int num_reads = static_cast<int>(head_ends_.size() * reads.level(level).size());
    for (const SharedRead& read : reads.level(level)) {
      const int first = cut(read.first_tile), last = cut(read.last_tile);
      if (first == last) continue;
      for_heads([&](int begin, int end, int most) {
        const int parts = PartsOf(read.num_rows, most, CeilDiv(step_->num_threads(), num_reads));
        for (int i = 0; i < parts; ++i) {
          const int r = read.num_rows * i / parts, rows = read.num_rows * (i + 1) / parts - r;
          items_.push_back({read.first_row + r, rows, begin, end, read.pages, first, last});
        }
      });
    }
    levels_.push_back(static_cast<int>(items_.size()));
  }
  for_heads([&](int begin, int end, int most) {
    for (int i = 0; i < static_cast<int>(spans.size()); ++i) {
      for (int r = 0, rows; r < spans[i].num_rows; r += rows) {
        const int of_tile = on_tiles ? most : kTile - (spans[i].start + r) % kTile;
        rows = std::min({most, spans[i].num_rows - r, of_tile});
        const int first = cut(reads.own_tile(i)), last = (spans[i].start + r + rows - 1) / kTile + 1;
        items_.push_back(
            {reads.first_row(i) + r, rows, begin, end, spans[i].pages.data(), first, last, true});
      }
    }
  });
  levels_.push_back(static_cast<int>(items_.size()));
}

void CpuAttention::Attend(const AttendCall& call) {
  const SharedReads& reads = step_->ReadsOfSpans(call.keys->page_size);
  MakeItems(call, reads);
  num_kept_ = reads.num_shared_rows() * static_cast<int>(call.q_to_kv.size());
  Grown(&kept_, static_cast<int64_t>(num_kept_) * (2 + RoundUp(call.keys->shape.dim, kPanel)));
  int begin = 0;
  for (int end : levels_) {
    step_->pool()->ParallelFor(end - begin, [&](int i, int thread) {
      Run(call, reads, items_[end - 1 - i], thread);  // late rows see most: they come first
    });
    begin = end;
  }
}

void CpuAttention::Run(const AttendCall& call, const SharedReads& reads, const Item& item, int thread) {
  const Matrix q = call.q;
  const int d = call.keys->shape.dim, width = RoundUp(d, kPanel);
  const int heads = item.head_end - item.head_begin, m = item.num_rows * heads,
            kv = call.q_to_kv[item.head_begin];
  const absl::Span<const SharedReads::Row> rows = reads.rows().subspan(item.first_row, item.num_rows);
  const bool on_tiles = reads_.on_tiles(*call.keys);
  const int64_t sums =
      on_tiles ? cpu::TileAttendScratch(d, width, call.keys->shape.dtype) : cpu::PackedSize(kTile, d);
  float* queries = step_->Scratch(thread, static_cast<size_t>(kTile) * (d + width) + sums);
  float* own = queries + kTile * d;
  float* packed = own + kTile * width;
  float max[kTile], sum[kTile];
  cpu::SoftmaxState state{max, sum, own, width};
  if (!item.ends || item.first_tile > 0) {  // kept by heads, then rows
    const int64_t at = int64_t{item.head_begin} * reads.num_shared_rows() + item.first_row * heads;
    state = {&kept_[at], &kept_[num_kept_ + at], &kept_[2 * num_kept_ + at * width], width};
  }
  int visible[kTile], first_visible[kTile];
  for (int r = 0; r < m; ++r) {
    const auto [row, position] = rows[r / heads];
    std::copy_n(q.row(row) + (item.head_begin + r % heads) * d, d, queries + r * d);
    visible[r] = position + 1;
    first_visible[r] = call.window > 0 ? std::max(0, visible[r] - call.window) : 0;
  }
  const int first = std::max(item.first_tile, *std::min_element(first_visible, first_visible + m) / kTile);
  cpu::AttendArgs args{queries,        d, m, d, d, 1.0f / std::sqrt(static_cast<float>(d)), visible, first,
                       item.last_tile, 1};
  if (call.window > 0) args.first_visible = first_visible;
  args.begins = item.first_tile == 0, args.ends = item.ends;
  const cpu::PagedState pages = HeadOf(*call.keys, *call.values, kv, item.pages);
  if (on_tiles) {
    uint16_t* tiles = GrownLines(&tiles_[thread], cpu::TiledSize(m, d, reads_.terms));
    for (int t = 0; t < cpu::TilesOf(m); ++t) cpu::PackTiles(queries, d, m, d, reads_.terms, t, tiles);
    cpu::AttendOnTiles({reads_.unit, reads_.terms, tiles}, args, pages, state, packed);
  } else {
    if (args.begins) {
      std::fill(state.acc, state.acc + m * width, 0.0f);
      std::fill(state.sum, state.sum + m, 0.0f);
      std::fill(state.max, state.max + m, -std::numeric_limits<float>::infinity());
    }
    if (m > cpu::kFewRows) {
      cpu::PackRows(queries, d, m, d, 0, cpu::NumRowTiles(m), packed);
      args.q = packed;
    }
    if (reads_.dot && call.keys->shape.dtype == DType::kBF16) {
      cpu::Bf16Pair* pairs = Grown(&pairs_[thread], cpu::PackedPairs(m, d));
      cpu::PackPairs(queries, d, m, d, 0, cpu::NumRowTiles(m), pairs);
      args.q_pairs = pairs;
      args.dot_tiles = item.ends ? rows[0].position / kTile : item.last_tile;
    }
    cpu::AttendTiles(args, pages, state);
  }
  for (int r = 0; r < m && item.ends; ++r) {
    float* y = call.out.row(rows[r / heads].batch_row) + (item.head_begin + r % heads) * d;
    const float scale = 1.0f / state.sum[r];
    for (int j = 0; j < d; ++j) y[j] = state.acc[r * width + j] * scale;
  }
}

}  // namespace sessa
