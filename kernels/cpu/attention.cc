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

void CpuAttention::MakeItems(absl::Span<const int> q_to_kv) {
  const std::vector<RowSpan>& spans = step_->rows().spans;
  const int num_heads = static_cast<int>(q_to_kv.size());
  items_.clear();
  for (int h = 0, e; h < num_heads; h = e) {
    for (e = h; e < num_heads && q_to_kv[e] == q_to_kv[h] && e - h < kTile;) ++e;
    const int block = std::max(1, kTile / (e - h));
    for (int i = 0; i < static_cast<int>(spans.size()); ++i) {
      for (int r = 0, rows; r < spans[i].num_rows; r += rows) {
        rows = std::min({block, spans[i].num_rows - r, kTile - (spans[i].start + r) % kTile});
        items_.push_back({i, r, rows, h, e});
      }
    }
  }
}

void CpuAttention::Attend(const AttendCall& call) {
  MakeItems(call.q_to_kv);
  step_->pool()->ParallelFor(static_cast<int>(items_.size()), [&](int i, int thread) {
    Run(call, items_[items_.size() - 1 - i], thread);  // late rows see most: they come first
  });
}

void CpuAttention::Run(const AttendCall& call, const Item& item, int thread) {
  const Matrix q = call.q;
  const RowSpan& span = step_->rows().spans[item.span];
  const int d = call.keys->shape.dim, width = RoundUp(d, kPanel);
  const int heads = item.head_end - item.head_begin, m = item.rows * heads,
            kv = call.q_to_kv[item.head_begin];
  const bool on_tiles = reads_.on_tiles(*call.keys);
  const int64_t sums =
      on_tiles ? cpu::TileAttendScratch(d, width, call.keys->shape.dtype) : cpu::PackedSize(kTile, d);
  float* queries = step_->Scratch(thread, static_cast<size_t>(kTile) * (d + width) + sums);
  float* acc = queries + kTile * d;
  float* packed = acc + kTile * width;
  float max[kTile], sum[kTile];
  int visible[kTile], first_visible[kTile];
  for (int r = 0; r < m; ++r) {
    const int row = item.first + r / heads;
    std::copy_n(q.row(span.first_row + row) + (item.head_begin + r % heads) * d, d, queries + r * d);
    visible[r] = span.start + row + 1;
    first_visible[r] = call.window > 0 ? std::max(0, visible[r] - call.window) : 0;
  }
  const int first = first_visible[0] / kTile, last = CeilDiv(visible[m - 1], kTile);
  cpu::AttendArgs args{queries, d, m, d, d, 1.0f / std::sqrt(static_cast<float>(d)), visible, first, last, 1};
  if (call.window > 0) args.first_visible = first_visible;
  const cpu::PagedState state = HeadOf(*call.keys, *call.values, kv, span.pages.data());
  if (on_tiles) {
    uint16_t* tiles = GrownLines(&tiles_[thread], cpu::TiledSize(m, d, reads_.terms));
    for (int t = 0; t < cpu::TilesOf(m); ++t) cpu::PackTiles(queries, d, m, d, reads_.terms, t, tiles);
    cpu::AttendOnTiles({reads_.unit, reads_.terms, tiles}, args, state, {max, sum, acc, width}, packed);
  } else {
    std::fill(acc, acc + m * width, 0.0f);
    std::fill(sum, sum + m, 0.0f);
    std::fill(max, max + m, -std::numeric_limits<float>::infinity());
    if (m > cpu::kFewRows) {
      cpu::PackRows(queries, d, m, d, 0, cpu::NumRowTiles(m), packed);
      args.q = packed;
    }
    if (reads_.dot && call.keys->shape.dtype == DType::kBF16) {
      cpu::Bf16Pair* pairs = Grown(&pairs_[thread], cpu::PackedPairs(m, d));
      cpu::PackPairs(queries, d, m, d, 0, cpu::NumRowTiles(m), pairs);
      args.q_pairs = pairs;
      args.dot_tiles = (visible[0] - 1) / kTile;
    }
    cpu::AttendTiles(args, state, {max, sum, acc, width});
  }
  for (int r = 0; r < m; ++r) {
    float* y = call.out.row(span.first_row + item.first + r / heads) + (item.head_begin + r % heads) * d;
    const float scale = 1.0f / sum[r];
    for (int j = 0; j < d; ++j) y[j] = acc[r * width + j] * scale;
  }
}

}  // namespace sessa
