// The CPU backend: cuts each operation into independent work items for the pool; the vector loops are in
// simd.cc, softmax_tiles.cc and scan_loops.cc.
#include "kernels/backend.h"

#include <algorithm>
#include <cstring>

#include "kernels/convert.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/feedback.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/pages_ahead.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/scan.h"
#include "kernels/cpu/step.h"
#include "kernels/cpu/tiles.h"

namespace sessa {
namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : reads_{.dot = options.activation_dtype != DType::kF32 && cpu::HasBf16Dot(),
               .unit = options.matrix_unit,
               .terms = cpu::TileTerms(options.activation_dtype != DType::kF32)},
        step_(options.num_threads),
        linear_(step_.pool(), options),
        attention_(&step_, reads_),
        feedback_(&step_, &attention_, reads_),
        scan_(&step_),
        samplers_(step_.num_threads()) {}

  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return AllocateMemory(bytes); }
  int64_t FreeBytes() const override { return FreeMemory(); }
  void CopyIn(const void* host, size_t bytes, void* device) override { std::memcpy(device, host, bytes); }
  void CopyOut(const void* device, size_t bytes, void* host) override { std::memcpy(host, device, bytes); }

  absl::StatusOr<LinearWeights> MakeLinear(const TensorView& weight, const TensorView* bias,
                                           DType to) override {
    return linear_.Make(weight, bias, to);
  }

  absl::StatusOr<Buffer> MakeTable(const TensorView& values, DType to) override {
    const int64_t n = values.num_values();
    auto table = Allocate(n * SizeOf(to));
    if (!table.ok()) return table.status();
    if (values.dtype == to) {
      std::memcpy(table->data(), values.data, n * SizeOf(to));
      return table;
    }
    constexpr int64_t kBlock = 1 << 16;
    step_.pool()->ParallelFor(static_cast<int>(CeilDiv(n, kBlock)), [&](int block, int) {
      const int64_t begin = block * kBlock;
      std::vector<float> floats(std::min(n - begin, kBlock));
      ToFloats(values.data, begin, std::ssize(floats), values.dtype, floats.data());
      cpu::Store(floats.data(), static_cast<int>(floats.size()), to, ElementAt(*table, begin, to));
    });
    return table;
  }

  size_t BytesPerPage(const PagedShape& shape, int page_size) const override {
    return PagedLayout(shape, page_size).page * SizeOf(shape.dtype);
  }
  absl::StatusOr<PagedTensor> AllocatePages(const PagedShape& shape, int page_size, int first_page,
                                            int num_pages) override {
    auto memory = AllocateMemory(BytesPerPage(shape, page_size) * num_pages);
    if (!memory.ok()) return memory.status();
    PagedTensor tensor{shape, page_size, first_page, num_pages, *std::move(memory)};
    page_size_ = page_size;
    ahead_.Add(tensor);
    return tensor;
  }

  void BeginStep(const StepRows& rows) override {
    for (const RowSpan& span : rows.spans) {
      if (page_size_ == 0 || span.num_rows == 0 || span.pages.empty()) continue;
      const size_t last = (span.start + span.num_rows - 1) / page_size_;
      ahead_.Write(span.pages[std::min(last, span.pages.size() - 1)]);
    }
    step_.Begin(rows);
  }

  void Embed(const Buffer& table, DType dtype, Matrix x) override {
    for (int r = 0; r < x.rows; ++r) {
      int64_t id = step_.rows().token_ids[r];
      if (id < 0) id = std::max(0, sampled_[-1 - id]);
      cpu::Load(ElementAt(table, id * x.cols, dtype), x.cols, dtype, x.row(r));
    }
  }

  void Linear(Matrix x, const Norm& norm, absl::Span<const LinearCall> calls) override {
    linear_.Run(norm.kind == Norm::Kind::kNone ? x : Normed(x, norm), calls);
  }

  void LinearPair(Matrix x, const Norm& norm, const LinearCall& first, const LinearCall& second) override {
    linear_.RunPair(norm.kind == Norm::Kind::kNone ? x : Normed(x, norm), first, second);
  }

  void GatherLogitRows(Matrix x, Matrix y) override {
    for (int i = 0; i < y.rows; ++i) std::copy_n(x.row(step_.rows().logit_rows[i]), y.cols, y.row(i));
  }

  void Sample(Matrix logits, absl::Span<const SampleRow> rows, absl::Span<const SampleEdit> edits,
              int32_t* tokens) override {
    sampled_ = tokens;
    step_.pool()->ParallelFor(static_cast<int>(rows.size()), [&](int i, int thread) {
      const SampleRow& row = rows[i];
      tokens[i] = samplers_[thread].Sample({logits.row(row.row), static_cast<size_t>(logits.cols)}, row,
                                           edits.subspan(row.first_edit, row.num_edits));
    });
  }

  void Append(const AppendCall& call) override { attention_.Append(call); }
  void Attend(const AttendCall& call) override { attention_.Attend(call); }
  FeedbackOps* feedback() override { return &feedback_; }
  ScanOps* scan() override { return &scan_; }

  void ReadState(const PagedTensor& state, const int32_t* pages, int n, float* out) override {
    const int64_t width = int64_t{state.shape.num_heads} * state.shape.dim;
    for (int t = 0; t < n; ++t)
      LoadToken(state, pages[t / state.page_size], t % state.page_size, out + t * width);
  }

  absl::Status Synchronize() override { return absl::OkStatus(); }

 private:
  Matrix Normed(Matrix x, const Norm& norm) {
    const Matrix y = {GrownLines(&normed_, static_cast<int64_t>(x.rows) * x.cols), x.rows, x.cols, x.cols};
    step_.ForRows(x.rows, [&](int r) {
      if (norm.kind == Norm::Kind::kLayer) {
        cpu::LayerNormRow(x.row(r), norm.weight->floats(), norm.bias->floats(), norm.eps, x.cols, y.row(r));
        return;
      }
      const int part = x.cols / norm.groups;
      for (int c = 0; c < x.cols; c += part)
        cpu::RmsNormRow(x.row(r) + c, norm.weight->floats() + c, norm.eps, part, y.row(r) + c);
    });
    return y;
  }

  const StateReads reads_;
  CpuStep step_;
  LinearLayers linear_;
  CpuAttention attention_;
  CpuFeedback feedback_;
  CpuScan scan_;
  std::vector<cpu::RowSampler> samplers_;  // [thread]
  const int32_t* sampled_ = nullptr;       // the tokens of the last Sample
  std::vector<float> normed_;              // of Linear
  int page_size_ = 0;                      // of the tensors in pages, if there are any
  PagesAhead ahead_;
};

}  // namespace

bool CpuHasBf16Dot() { return cpu::HasBf16Dot(); }

bool CpuHasInt8Dot() { return cpu::HasInt8Dot(); }
bool CpuHasAmx() { return cpu::HasAmx(); }

std::unique_ptr<Backend> MakeCpuBackend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace sessa
