// The CPU backend: cuts each operation into independent work items for the pool; the vector loops are in
// simd.cc. State layouts: k_f [page][kv head][page_size / 16] panels of keys, v_f [page][kv head][page_size]
// rows of d', k_b [page] [page_size / 16] panels, s [page][page_size] rows of D', where x' rounds up to 16;
// panels and rows as in simd.h.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/convert.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/row_sampler.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/tiles.h"

namespace sessa {
namespace {

using cpu::kPanel;
using cpu::kTile;
static_assert(cpu::kTile == kFeedbackTile && cpu::kGroups == kFeedbackChains);

struct Layout {
  explicit Layout(const LayerState& s)
      : key_head(static_cast<int64_t>(s.page_size) * cpu::PanelRows(s.head_dim)),
        value_head(static_cast<int64_t>(s.page_size) * RoundUp(s.head_dim, kPanel)),
        feedback_key(static_cast<int64_t>(s.page_size) * cpu::PanelRows(s.hidden_size)),
        feedback_value(static_cast<int64_t>(s.page_size) * RoundUp(s.hidden_size, kPanel)) {}
  int64_t key_head, value_head;          // of one head in one page
  int64_t feedback_key, feedback_value;  // of one page
};

char* At(const Buffer& b, int64_t element, DType dtype) {
  return static_cast<char*>(b.data()) + element * SizeOf(dtype);
}

// The panel of keys that a slot of a page belongs to; the page's keys start at element `base`.
char* KeyPanel(const Buffer& keys, int64_t base, int slot, int dim, DType dtype) {
  return At(keys, base + static_cast<int64_t>(slot / kPanel) * kPanel * cpu::PanelRows(dim), dtype);
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : dot_of_state_(options.bf16_activations && cpu::HasBf16Dot()),
        pool_(options.num_threads),
        linear_(&pool_, options),
        scratch_(pool_.num_threads()),
        samplers_(pool_.num_threads()),
        thread_pairs_(pool_.num_threads()) {}

  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return AllocatePages(bytes); }
  int64_t FreeBytes() const override { return FreeMemory(); }
  void CopyIn(const void* host, size_t bytes, void* device) override { std::memcpy(device, host, bytes); }
  void CopyOut(const void* device, size_t bytes, void* host) override { std::memcpy(host, device, bytes); }

  absl::StatusOr<LinearWeights> MakeLinear(const void* weight, const void* bias, DType from, int n, int k,
                                           DType to) override {
    return linear_.Make(weight, bias, from, n, k, to);
  }

  absl::StatusOr<Buffer> MakeTable(const void* data, DType from, int64_t n, DType to) override {
    auto table = Allocate(n * SizeOf(to));
    if (!table.ok()) return table.status();
    for (int64_t i = 0; i < n; ++i) {
      const float x = ToFloat(data, i, from);
      cpu::Store(&x, 1, to, At(*table, i, to));
    }
    return table;
  }

  int MaxBlockRows(DType) const override { return kFeedbackTile; }
  size_t StateBytesPerPage(const LayerState& s, bool feedback) const override {
    const Layout l(s);
    return SizeOf(s.dtype) *
           (feedback ? l.feedback_key + l.feedback_value : s.num_kv_heads * (l.key_head + l.value_head));
  }

  absl::Status AllocateState(int num_pages, LayerState* s) override {
    const Layout l(*s);
    const int64_t heads = static_cast<int64_t>(num_pages) * s->num_kv_heads, own = s->num_feedback_pages;
    for (auto [buffer, elements] : {std::pair{&s->k_f, heads * l.key_head},
                                    {&s->v_f, heads * l.value_head},
                                    {&s->k_b, own * l.feedback_key},
                                    {&s->s, own * l.feedback_value}}) {
      auto memory = Allocate(elements * SizeOf(s->dtype));
      if (!memory.ok()) return memory.status();
      *buffer = *std::move(memory);
    }
    return absl::OkStatus();
  }

  void BeginStep(const StepRows& rows) override {
    step_ = &rows;
    const int d = rows.head_dim, half = d / 2, n = static_cast<int>(rows.positions.size());
    cos_.resize(static_cast<size_t>(n) * half);
    sin_.resize(cos_.size());
    for (int i = 0; i < half; ++i) {
      const float inv_freq =
          1.0f / std::pow(rows.rope_theta, static_cast<float>(2 * i) / static_cast<float>(d));
      for (int r = 0; r < n; ++r) {
        const float angle = static_cast<float>(rows.positions[r]) * inv_freq;
        cos_[r * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
        sin_[r * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
      }
    }
  }

  void Embed(const Buffer& table, DType dtype, Matrix x) override {
    for (int r = 0; r < x.rows; ++r) {
      cpu::Load(At(table, static_cast<int64_t>(step_->token_ids[r]) * x.cols, dtype), x.cols, dtype,
                x.row(r));
    }
  }

  void Linear(Matrix x, absl::Span<const LinearCall> calls) override { linear_.Run(x, calls); }

  void LayerNormLinear(Matrix x, const LayerNorm& norm, absl::Span<const LinearCall> calls) override {
    const Matrix y = {Grown(&normed_, static_cast<size_t>(x.rows) * x.cols), x.rows, x.cols, x.cols};
    ForRows(x.rows, [&](int r) {
      cpu::LayerNormRow(x.row(r), norm.weight->floats(), norm.bias->floats(), norm.eps, x.cols, y.row(r));
    });
    linear_.Run(y, calls);
  }

  void GatherLogitRows(Matrix x, Matrix y) override {
    for (int i = 0; i < y.rows; ++i) std::copy_n(x.row(step_->logit_rows[i]), y.cols, y.row(i));
  }

  void Sample(Matrix logits, absl::Span<const SampleRow> rows, absl::Span<const SampleEdit> edits,
              int32_t* tokens) override {
    pool_.ParallelFor(static_cast<int>(rows.size()), [&](int i, int thread) {
      const SampleRow& row = rows[i];
      tokens[i] = samplers_[thread].Sample({logits.row(row.row), static_cast<size_t>(logits.cols)}, row,
                                           edits.subspan(row.first_edit, row.num_edits));
    });
  }

  void AppendRows(const LayerRows& rows, LayerState* s) override {
    const Layout l(*s);
    const int d = s->head_dim, D = s->hidden_size;
    ForTokens(step_->spans, s->page_size, [&](int row, int64_t page, int slot) {
      Rotate(row, rows.q);
      Rotate(row, rows.k);
      rows.gamma[row] =
          rows.gamma_max * std::tanh(*rows.gamma_bias->floats() +
                                     cpu::DotRow(rows.u.row(row), rows.gamma_ctx->floats(), rows.u.cols));
      for (int h = 0; h < s->num_kv_heads; ++h) {
        const int64_t head = page * s->num_kv_heads + h;
        cpu::StoreColumn(rows.k.row(row) + h * d, d, s->dtype,
                         KeyPanel(s->k_f, head * l.key_head, slot, d, s->dtype), slot % kPanel);
        cpu::StoreRow(rows.v.row(row) + h * d, d, s->dtype, At(s->v_f, head * l.value_head, s->dtype),
                      RoundUp(d, kPanel), slot);
      }
      if (!Owns(*s, page)) return;
      cpu::StoreColumn(rows.k_b.row(row), D, s->dtype,
                       KeyPanel(s->k_b, (page - s->first_feedback_page) * l.feedback_key, slot, D, s->dtype),
                       slot % kPanel);
    });
  }

  void AppendFeedbackStates(Matrix x, int wave, LayerState* s) override {
    const Layout l(*s);
    ForTokens(step_->waves[wave], s->page_size, [&](int row, int64_t page, int slot) {
      if (!Owns(*s, page)) return;
      page -= s->first_feedback_page;
      cpu::StoreRow(x.row(row), s->hidden_size, s->dtype, At(s->s, page * l.feedback_value, s->dtype),
                    RoundUp(s->hidden_size, kPanel), slot);
    });
  }

  void Attend(const AttendCall& call, const LayerState& s) override {
    const Matrix q = call.q, out = call.out;
    const absl::Span<const int> q_to_kv = call.q_to_kv;
    const Layout l(s);
    const std::vector<RowSpan>& spans = step_->spans;
    const int d = s.head_dim, width = RoundUp(d, kPanel), num_heads = static_cast<int>(q_to_kv.size());
    std::vector<AttendItem>& items = attend_items_;
    items.clear();
    for (int h = 0, e; h < num_heads; h = e) {
      for (e = h; e < num_heads && q_to_kv[e] == q_to_kv[h] && e - h < kTile;) ++e;
      const int block = std::max(1, kTile / (e - h));
      for (int i = 0; i < static_cast<int>(spans.size()); ++i) {
        for (int r = 0, rows; r < spans[i].num_rows; r += rows) {
          rows = std::min({block, spans[i].num_rows - r, kTile - (spans[i].start + r) % kTile});
          items.push_back({i, r, rows, h, e});
        }
      }
    }
    pool_.ParallelFor(static_cast<int>(items.size()), [&](int i, int thread) {
      const AttendItem& item = items[items.size() - 1 - i];  // late rows see most: start with them
      const RowSpan& span = spans[item.span];
      const int heads = item.head_end - item.head_begin, m = item.rows * heads, kv = q_to_kv[item.head_begin];
      float* queries = Scratch(thread, static_cast<size_t>(kTile) * (d + width) + cpu::PackedSize(kTile, d));
      float* acc = queries + kTile * d;
      float* packed = acc + kTile * width;
      std::fill(acc, acc + m * width, 0.0f);
      float max[kTile], sum[kTile] = {};
      int visible[kTile];
      std::fill(max, max + kTile, -std::numeric_limits<float>::infinity());
      for (int r = 0; r < m; ++r) {
        const int row = item.first + r / heads;
        std::copy_n(q.row(span.first_row + row) + (item.head_begin + r % heads) * d, d, queries + r * d);
        visible[r] = span.start + row + 1;
      }
      if (m > cpu::kFewRows) cpu::PackRows(queries, d, m, d, 0, cpu::NumRowTiles(m), packed);
      const int last = CeilDiv(visible[m - 1], kTile);
      cpu::AttendArgs args{m > cpu::kFewRows ? packed : queries,    d,       m, d,    d,
                           1.0f / std::sqrt(static_cast<float>(d)), visible, 0, last, 1};
      if (ReadsInPairs(s)) {
        cpu::Bf16Pair* pairs = Grown(&thread_pairs_[thread], cpu::PackedPairs(m, d));
        cpu::PackPairs(queries, d, m, d, 0, cpu::NumRowTiles(m), pairs);
        args.q_pairs = pairs;
        args.dot_tiles = (visible[0] - 1) / kTile;
      }
      cpu::AttendTiles(args,
                       {span.pages.data(), s.page_size, 0, s.dtype, At(s.k_f, kv * l.key_head, s.dtype),
                        s.num_kv_heads * l.key_head, At(s.v_f, kv * l.value_head, s.dtype),
                        s.num_kv_heads * l.value_head, width},
                       {max, sum, acc, width});
      for (int r = 0; r < m; ++r) {
        float* y = out.row(span.first_row + item.first + r / heads) + (item.head_begin + r % heads) * d;
        const float scale = 1.0f / sum[r];
        for (int j = 0; j < d; ++j) y[j] = acc[r * width + j] * scale;
      }
    });
  }

  void FeedbackRead(const FeedbackReadCall& call, const LayerState& s) override {
    const Matrix q_b = call.q_b;
    const int rank = call.rank, num_ranks = call.num_ranks;
    const FeedbackPartials out = call.partials;
    const Layout l(s);
    const std::vector<RowSpan>& blocks = step_->waves[call.wave];
    const absl::Span<const int> first_rows = FirstRows(blocks);
    const int own = kFeedbackChains / num_ranks;
    const absl::Span<const Query> queries = Pack(q_b, blocks, ReadsInPairs(s));
    pool_.ParallelFor(static_cast<int>(blocks.size()) * own, [&](int item, int) {
      const int chain = item % own * num_ranks + rank, wave_row = first_rows[item / own];
      const RowSpan& block = blocks[item / own];
      const int tile = block.start / kTile;  // the block's own tile
      float* max = out.max + chain * out.rows + wave_row;
      float* sum = out.sum + chain * out.rows + wave_row;
      float* acc = out.acc + (static_cast<int64_t>(chain) * out.rows + wave_row) * out.width;
      std::fill(max, max + block.num_rows, -std::numeric_limits<float>::infinity());
      std::fill(sum, sum + block.num_rows, 0.0f);
      if (chain > tile) return;
      std::fill(acc, acc + static_cast<int64_t>(block.num_rows) * out.width, 0.0f);
      const bool own_chain = tile % kFeedbackChains == chain;
      int visible[kTile];
      for (int r = 0; r < block.num_rows; ++r) visible[r] = block.start + r;  // strictly the past
      cpu::AttendArgs args{queries[item / own].rows,
                           q_b.stride,
                           block.num_rows,
                           s.hidden_size,
                           s.hidden_size,
                           1.0f / std::sqrt(static_cast<float>(s.hidden_size)),
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
      cpu::AttendTiles(args,
                       {block.pages.data(), s.page_size, s.first_feedback_page, s.dtype, s.k_b.data(),
                        l.feedback_key, s.s.data(), l.feedback_value, RoundUp(s.hidden_size, kPanel)},
                       {max, sum, acc, out.width});
    });
  }

  void FeedbackSolve(const FeedbackSolveCall& call, LayerState* state) override {
    const FeedbackPartials& in = call.partials;
    const std::vector<RowSpan>& blocks = step_->waves[call.wave];
    const absl::Span<const int> first_rows = FirstRows(blocks);
    constexpr int kSlab = cpu::kSolveSlab;  // columns of an item; columns never mix
    const int slabs = CeilDiv(call.end - call.begin, kSlab);
    pool_.ParallelFor(static_cast<int>(blocks.size()) * slabs, [&](int item, int) {
      const RowSpan& block = blocks[item / slabs];
      const int row = first_rows[item / slabs], c = call.begin + item % slabs * kSlab,
                end = std::min(call.end, c + kSlab), owner = block.start / kTile % call.num_ranks;
      cpu::FeedbackSolve(
          {block.num_rows, block.start / kTile % kFeedbackChains, in.max + row, in.sum + row, in.rows,
           in.acc + static_cast<int64_t>(row) * in.width, static_cast<int64_t>(in.rows) * in.width, in.width,
           in.p + (static_cast<int64_t>(owner) * in.rows + row) * kTile, block.start % kTile,
           call.f.row(block.first_row), call.f.stride, call.gamma + block.first_row, state->dtype,
           call.s.row(block.first_row), call.s.stride},
          c, end);
      for (int r = block.first_row; r < block.first_row + block.num_rows && call.g.data != nullptr; ++r)
        cpu::MultiplyRow(call.s.row(r) + c, call.g.row(r) + c, end - c, call.gated.row(r) + c);
    });
    if (call.append) AppendFeedbackStates(call.s, call.wave, state);
  }

  void ReadState(const LayerState& s, const int32_t* pages, int n, float* k_f, float* v_f, float* k_b,
                 float* out) override {
    const Layout l(s);
    const auto key = [&](const Buffer& b, int64_t base, int dim, int slot, float* y) {
      if (y != nullptr)
        cpu::LoadColumn(KeyPanel(b, base, slot, dim, s.dtype), dim, s.dtype, slot % kPanel, y);
    };
    const auto value = [&](const Buffer& b, int64_t base, int dim, int slot, float* y) {
      if (y != nullptr) cpu::LoadRow(At(b, base, s.dtype), RoundUp(dim, kPanel), slot, dim, s.dtype, y);
    };
    const auto row = [](float* y, int64_t t, int dim) { return y == nullptr ? nullptr : y + t * dim; };
    for (int t = 0; t < n; ++t) {
      const int64_t page = pages[t / s.page_size], own = page - s.first_feedback_page;
      const int slot = t % s.page_size, d = s.head_dim, kv = s.num_kv_heads, D = s.hidden_size;
      for (int h = 0; h < kv; ++h) {
        const int64_t head = page * kv + h;
        key(s.k_f, head * l.key_head, d, slot, row(k_f, static_cast<int64_t>(t) * kv + h, d));
        value(s.v_f, head * l.value_head, d, slot, row(v_f, static_cast<int64_t>(t) * kv + h, d));
      }
      key(s.k_b, own * l.feedback_key, D, slot, row(k_b, t, D));
      value(s.s, own * l.feedback_value, D, slot, row(out, t, D));
    }
  }

  absl::Status Synchronize() override { return absl::OkStatus(); }

 private:
  static bool Owns(const LayerState& s, int64_t page) {
    return page >= s.first_feedback_page && page < s.first_feedback_page + s.num_feedback_pages;
  }

  // A row's heads, by the angles of its position.
  void Rotate(int row, Matrix x) {
    const int head_dim = step_->head_dim, half = head_dim / 2;
    if (half == 0) return;
    const float *c = cos_.data() + row * half, *s = sin_.data() + row * half;
    for (float* head = x.row(row); head < x.row(row) + x.cols; head += head_dim) {
      for (int i = 0; i < half; ++i) {
        const float a = head[2 * i], b = head[2 * i + 1];
        head[2 * i] = a * c[i] - b * s[i];
        head[2 * i + 1] = a * s[i] + b * c[i];
      }
    }
  }

  // Rows are cheap: hand them out in batches, and keep small steps on the calling thread.
  void ForRows(int rows, absl::FunctionRef<void(int row)> body) {
    constexpr int kBatch = 8;
    pool_.ParallelFor(CeilDiv(rows, kBatch), [&](int i, int) {
      for (int r = i * kBatch; r < std::min(rows, (i + 1) * kBatch); ++r) body(r);
    });
  }

  void ForTokens(absl::Span<const RowSpan> spans, int page_size,
                 absl::FunctionRef<void(int row, int64_t page, int slot)> body) {
    const absl::Span<const int> first_rows = FirstRows(spans);
    const int total = spans.empty() ? 0 : first_rows.back() + spans.back().num_rows;
    ForRows(total, [&](int row) {
      const size_t i = std::upper_bound(first_rows.begin(), first_rows.end(), row) - first_rows.begin() - 1;
      const RowSpan& span = spans[i];
      const int r = row - first_rows[i], position = span.start + r;
      body(span.first_row + r, span.pages[position / page_size], position % page_size);
    });
  }

  bool ReadsInPairs(const LayerState& s) const { return dot_of_state_ && s.dtype == DType::kBF16; }

  // One KV head and as many rows of one tile as keep (rows x its query heads) within a tile.
  struct AttendItem {
    int span, first, rows, head_begin, head_end;
  };
  struct PackItem {
    const RowSpan* block;
    int tile;
    float* to;  // of the block; null: not wanted
    cpu::Bf16Pair* pairs_to;
  };

  // The rows of each block as the kernels read them: packed when they are more than a few; and as pairs, if
  // wanted. Valid until the next call.
  struct Query {
    const float* rows;
    const cpu::Bf16Pair* pairs;
  };
  absl::Span<const Query> Pack(Matrix x, absl::Span<const RowSpan> blocks, bool pairs) {
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
      for (int t = 0; t < cpu::NumRowTiles(m) && (pack || pairs); ++t) {
        pack_items_.push_back({&block, t, pack ? packed : nullptr, pairs ? packed_pairs : nullptr});
      }
      packed += pack ? cpu::PackedSize(m, x.cols) : 0;
      packed_pairs += pairs ? cpu::PackedPairs(m, x.cols) : 0;
    }
    pool_.ParallelFor(static_cast<int>(pack_items_.size()), [&](int i, int) {
      const auto& [block, t, to, pairs_to] = pack_items_[i];
      const float* rows = x.row(block->first_row);
      if (to != nullptr) cpu::PackRows(rows, x.stride, block->num_rows, x.cols, t, t + 1, to);
      if (pairs_to != nullptr) cpu::PackPairs(rows, x.stride, block->num_rows, x.cols, t, t + 1, pairs_to);
    });
    return queries_;
  }

  // The first row of each block in its wave.
  absl::Span<const int> FirstRows(absl::Span<const RowSpan> blocks) {
    first_rows_.clear();
    int rows = 0;
    for (const RowSpan& block : blocks) first_rows_.push_back(rows), rows += block.num_rows;
    return first_rows_;
  }

  float* Scratch(int thread, size_t floats) { return Grown(&scratch_[thread], floats); }

  const bool dot_of_state_;  // reads of bf16 state are bf16 dot products
  ThreadPool pool_;
  LinearLayers linear_;
  const StepRows* step_ = nullptr;
  std::vector<float> cos_, sin_;             // [num_rows, head_dim / 2] of the step
  std::vector<float> normed_;                // of LayerNormLinear
  std::vector<std::vector<float>> scratch_;  // [thread]
  std::vector<cpu::RowSampler> samplers_;    // [thread]
  std::vector<std::vector<cpu::Bf16Pair>> thread_pairs_;
  std::vector<float> packed_;
  std::vector<cpu::Bf16Pair> pairs_;
  // One operation uses these; they are here so that a step allocates nothing.
  std::vector<Query> queries_;
  std::vector<PackItem> pack_items_;
  std::vector<AttendItem> attend_items_;
  std::vector<int> first_rows_;
};

}  // namespace

bool CpuHasBf16Dot() { return cpu::HasBf16Dot(); }

bool CpuHasAmx() { return cpu::HasAmx(); }

std::unique_ptr<Backend> MakeCpuBackend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace sessa
