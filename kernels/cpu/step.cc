#include "kernels/cpu/step.h"

#include <algorithm>
#include <cmath>

namespace sessa {
namespace {

using cpu::kPanel;

// The panel of keys that a slot of a head belongs to, whose keys start at element `base`.
char* KeyPanel(const PagedTensor& t, int64_t base, int slot) {
  return ElementAt(t.data, base + static_cast<int64_t>(slot / kPanel) * kPanel * cpu::PanelRows(t.shape.dim),
                   t.shape.dtype);
}

// The panel of int8 that a slot of a head belongs to, which begins at byte `base`.
int8_t* Int8Panel(const PagedTensor& t, int64_t base, int slot) {
  return static_cast<int8_t*>(t.data.data()) + base + slot / kPanel * cpu::Int8PanelBytes(t.shape.dim);
}

}  // namespace

void CpuStep::Begin(const StepRows& rows) {
  rows_ = &rows;
  for (Found& found : found_) found.page_size = 0;
  const int half = static_cast<int>(rows.inv_freq.size()), n = static_cast<int>(rows.positions.size());
  cos_.resize(static_cast<size_t>(n) * 2 * half);
  sin_.resize(cos_.size());
  ForRows(n, [&](int r) {
    float *cos = cos_.data() + int64_t{r} * 2 * half, *sin = sin_.data() + int64_t{r} * 2 * half;
    for (int i = 0; i < half; ++i) {
      const float angle = static_cast<float>(rows.positions[r]) * rows.inv_freq[i];
      const float c = static_cast<float>(std::cos(static_cast<double>(angle))) * rows.rope_scale,
                  s = static_cast<float>(std::sin(static_cast<double>(angle))) * rows.rope_scale;
      cos[2 * i] = cos[2 * i + 1] = c;
      sin[2 * i] = -s, sin[2 * i + 1] = s;
    }
  });
}

void CpuStep::Rotate(int row, Matrix x) const {
  const int half = static_cast<int>(rows_->inv_freq.size());
  if (half == 0) return;
  const int64_t first = int64_t{row} * 2 * half;
  for (float* head = x.row(row); head < x.row(row) + x.cols; head += 2 * half)
    cpu::RotateRow(cos_.data() + first, sin_.data() + first, 2 * half, head);
}

void CpuStep::ForRows(int rows, absl::FunctionRef<void(int row)> body) {
  constexpr int kBatch = 8;
  pool_.ParallelFor(CeilDiv(rows, kBatch), [&](int i, int) {
    for (int r = i * kBatch; r < std::min(rows, (i + 1) * kBatch); ++r) body(r);
  });
}

void CpuStep::ForTokens(absl::Span<const RowSpan> spans, int page_size,
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

absl::Span<const int> CpuStep::FirstRows(absl::Span<const RowSpan> blocks) {
  first_rows_.clear();
  int rows = 0;
  for (const RowSpan& block : blocks) first_rows_.push_back(rows), rows += block.num_rows;
  return first_rows_;
}

const SharedReads& CpuStep::Find(size_t index, absl::Span<const RowSpan> blocks, int page_size) {
  if (found_.size() <= index) found_.resize(index + 1);
  Found& found = found_[index];
  if (found.page_size != page_size) found.reads.Find(blocks, found.page_size = page_size);
  return found.reads;
}

void StoreToken(const float* x, PagedTensor* to, int64_t page, int slot) {
  const PagedLayout layout(*to);
  const int dim = to->shape.dim;
  int64_t base = (page - to->first_page) * layout.page;
  for (int h = 0; h < to->shape.num_heads; ++h, base += layout.head, x += dim) {
    if (to->shape.dtype == DType::kI8) {
      cpu::StoreInt8(x, dim, to->shape.use, Int8Panel(*to, base, slot), slot % kPanel);
    } else if (to->shape.use == PagedShape::Use::kKey) {
      cpu::StoreColumn(x, dim, to->shape.dtype, KeyPanel(*to, base, slot), slot % kPanel);
    } else {
      cpu::StoreRow(x, dim, to->shape.dtype, ElementAt(to->data, base, to->shape.dtype), RoundUp(dim, kPanel),
                    slot);
    }
  }
}

void LoadToken(const PagedTensor& from, int64_t page, int slot, float* x) {
  const PagedLayout layout(from);
  const int dim = from.shape.dim;
  int64_t base = (page - from.first_page) * layout.page;
  for (int h = 0; h < from.shape.num_heads; ++h, base += layout.head, x += dim) {
    if (from.shape.dtype == DType::kI8) {
      cpu::LoadInt8(Int8Panel(from, base, slot), dim, from.shape.use, slot % kPanel, x);
    } else if (from.shape.use == PagedShape::Use::kKey) {
      cpu::LoadColumn(KeyPanel(from, base, slot), dim, from.shape.dtype, slot % kPanel, x);
    } else {
      cpu::LoadRow(ElementAt(from.data, base, from.shape.dtype), RoundUp(dim, kPanel), slot, dim,
                   from.shape.dtype, x);
    }
  }
}

cpu::PagedState HeadOf(const PagedTensor& keys, const PagedTensor& values, int head, const int32_t* pages) {
  const PagedLayout k(keys), v(values);
  const DType dtype = keys.shape.dtype;
  return {pages,
          keys.page_size,
          keys.first_page,
          dtype,
          ElementAt(keys.data, head * k.head, dtype),
          k.page,
          ElementAt(values.data, head * v.head, dtype),
          v.page,
          RoundUp(values.shape.dim, kPanel)};
}

}  // namespace sessa
