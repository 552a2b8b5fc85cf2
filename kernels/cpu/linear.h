// The CPU backend's linear layers: weights in the format of their dtype, and the panels of all calls dealt
// out to the pool.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/int8_tiles.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/tiles.h"

namespace sessa {

class LinearLayers {
 public:
  // The pool must outlive this.
  LinearLayers(ThreadPool* pool, const CpuOptions& options);

  // As the functions of Backend.
  absl::StatusOr<LinearWeights> Make(const TensorView& weight, const TensorView* bias, DType to);
  void Run(Matrix x, absl::Span<const LinearCall> calls);
  void RunPair(Matrix x, const LinearCall& first, const LinearCall& second);

 private:
  // Which kernels run: those of simd.h on floats or on bf16 pairs, of int8_linear.h, of tiles.h or of
  // int8_tiles.h.
  enum class Format { kFloat, kPairs, kInt8, kTiles, kInt8Tiles };
  Format FormatOf(DType dtype) const;
  static bool IsOfTiles(Format format) { return format == Format::kTiles || format == Format::kInt8Tiles; }
  int Terms() const { return cpu::TileTerms(bf16_activations()); }
  int Int8Terms() const { return cpu::Int8Terms(activation_dtype_ == DType::kI8); }
  bool bf16_activations() const { return activation_dtype_ != DType::kF32; }
  // The left side from a row on, of int8 tiles.
  cpu::Int8Left Int8LeftFrom(Matrix x, const void* left, int row) const;
  static int64_t PanelBytes(Format format, const LinearWeights& w);
  static const char* PanelOf(Format format, const LinearWeights& w, int panel);
  // The left side as the format's kernels read it.
  const void* Prepare(Matrix x, Format format);
  // Rows of x that go at once; all but on a tile unit.
  int RowsAtOnce(Matrix x, Format format) const;
  // What Run does, of a prepared left side. between: where the one call's products go as a left side, if not
  // null.
  void RunItems(Matrix x, Format format, const void* left, absl::Span<const LinearCall> calls,
                uint16_t* between);
  // Both products of a call with kSiluGate at once, on a tile unit. As RunPanels.
  void RunGated(Matrix x, int begin, Format format, const void* left, const LinearCall& call, int first,
                Matrix y, uint16_t* between);
  // y becomes what the epilogue makes of it and of the panels [first, last) for its rows, those of x from
  // `begin` on (0 but of tiles).
  void RunPanels(Matrix x, int begin, Format format, const void* left, const LinearWeights& w, int first,
                 int last, Epilogue epilogue, int thread, Matrix y);

  ThreadPool* const pool_;
  const MatrixUnit unit_;
  const DType activation_dtype_;
  std::vector<float> packed_;
  std::vector<cpu::Bf16Pair> pairs_;
  std::vector<uint32_t> words_;
  std::vector<uint16_t> tiles_, between_;
  std::vector<int8_t> int8_tiles_;
  std::vector<float> row_scales_;             // of the rows in int8_tiles_
  std::vector<std::vector<float>> scratch_;   // [thread]
  std::vector<std::vector<float>> products_;  // [thread] of an item, to be added or gated
};

}  // namespace sessa
