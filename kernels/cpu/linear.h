// The CPU backend's linear layers: weights in the format of their dtype, and the panels of all calls dealt
// out to the pool.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/thread_pool.h"

namespace sessa {

class LinearLayers {
 public:
  // use_bf16_dot: as of MakeCpuBackend. The pool must outlive this.
  LinearLayers(ThreadPool* pool, bool use_bf16_dot);

  // As the functions of Backend.
  absl::StatusOr<LinearWeights> Make(const void* weight, const void* bias, DType from, int n, int k,
                                     DType to);
  void Run(Matrix x, absl::Span<const LinearCall> calls);

 private:
  // Which kernels run: those of simd.h on floats or on bf16 pairs, or those of int8_linear.h.
  enum class Format { kFloat, kPairs, kInt8 };
  Format FormatOf(DType dtype) const;
  static int64_t PanelBytes(Format format, const LinearWeights& w);
  // The left side as the format's kernels read it.
  const void* Prepare(Matrix x, Format format);
  // y = their outputs, of the panels [first, last).
  void RunPanels(Matrix x, Format format, const void* left, const LinearWeights& w, int first, int last,
                 int thread, Matrix y);

  ThreadPool* const pool_;
  const bool use_bf16_dot_;
  std::vector<float> packed_;
  std::vector<cpu::Bf16Pair> pairs_;
  std::vector<uint32_t> words_;
  std::vector<std::vector<float>> scratch_;  // [thread]
  std::vector<std::vector<float>> sums_;     // [thread] of an item, to be added
};

}  // namespace sessa
