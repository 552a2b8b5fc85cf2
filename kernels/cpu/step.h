// What the CPU backend's operations share: the threads, the step's rows with the angles of their positions,
// and where the vectors of a token lie in the pages of a paged tensor.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/int8_state.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/round.h"
#include "kernels/shared_reads.h"

namespace sessa {

// The vectors of one paged tensor: [page][head] of key panels, [page_size / 16] of them, or of rows, both as
// in simd.h, the dimension rounded up to 16; or of panels of int8 (int8_state.h).
struct PagedLayout {
  explicit PagedLayout(const PagedTensor& t) : PagedLayout(t.shape, t.page_size) {}
  PagedLayout(const PagedShape& shape, int page_size)
      : head(shape.dtype == DType::kI8
                 ? page_size / cpu::kPanel * cpu::Int8PanelBytes(shape.dim)
                 : static_cast<int64_t>(page_size) * (shape.use == PagedShape::Use::kKey
                                                          ? cpu::PanelRows(shape.dim)
                                                          : RoundUp(shape.dim, cpu::kPanel))),
        page(head * shape.num_heads) {}
  int64_t head, page;  // elements of one head of a page, and of a page
};

inline char* ElementAt(const Buffer& b, int64_t element, DType dtype) {
  return static_cast<char*>(b.data()) + element * static_cast<int64_t>(SizeOf(dtype));
}

class CpuStep {
 public:
  explicit CpuStep(int num_threads) : pool_(num_threads), scratch_(pool_.num_threads()) {}

  ThreadPool* pool() { return &pool_; }
  int num_threads() const { return pool_.num_threads(); }
  const StepRows& rows() const { return *rows_; }

  void Begin(const StepRows& rows);
  // The heads of a row of q or k, by the angles of its position.
  void Rotate(int row, Matrix x) const;

  // Rows are cheap: they are handed out in batches, and small steps stay on the calling thread.
  void ForRows(int rows, absl::FunctionRef<void(int row)> body);
  // position / page_size is the index of the page, `slot` the token's place in it.
  void ForTokens(absl::Span<const RowSpan> spans, int page_size,
                 absl::FunctionRef<void(int row, int64_t page, int slot)> body);
  // The first row of each block in its wave. Valid until the next call.
  absl::Span<const int> FirstRows(absl::Span<const RowSpan> blocks);
  // What the step's spans, or the blocks of a wave, read together. Found at the first call of a step; valid
  // until the next one.
  const SharedReads& ReadsOfSpans(int page_size) { return Find(0, rows_->spans, page_size); }
  const SharedReads& ReadsOfWave(int wave, int page_size) {
    return Find(1 + wave, rows_->waves[wave], page_size);
  }

  // One operation at a time uses it. It begins at a cache line.
  float* Scratch(int thread, size_t floats) { return GrownLines(&scratch_[thread], floats); }

 private:
  struct Found {
    SharedReads reads;
    int page_size = 0;  // 0: not found yet
  };
  const SharedReads& Find(size_t index, absl::Span<const RowSpan> blocks, int page_size);

  ThreadPool pool_;
  const StepRows* rows_ = nullptr;
  std::vector<float> cos_, sin_;             // [num_rows, head_dim], as RotateRow reads them
  std::vector<int> first_rows_;              // here so that a step allocates nothing
  std::vector<std::vector<float>> scratch_;  // [thread]
  std::deque<Found> found_;                  // of the spans, then of each wave; stay where they are
};

// Puts the vectors of one token, [num_heads * dim], into its page, and gets them back.
void StoreToken(const float* x, PagedTensor* to, int64_t page, int slot);
void LoadToken(const PagedTensor& from, int64_t page, int slot, float* x);
// As the vector loops want a head's keys and values.
cpu::PagedState HeadOf(const PagedTensor& keys, const PagedTensor& values, int head, const int32_t* pages);

}  // namespace sessa
