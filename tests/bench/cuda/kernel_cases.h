// The benchmarks of single operations, through the Backend that a model uses, on whatever device it is given.
// Everything an operation reads and writes is in the device's memory; what would fit into its L2 cache from
// one run to the next is there several times and taken in turn, as the layers of a model are.
#pragma once

#include "absl/status/statusor.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/table.h"

namespace sessa {

// [rows, D] x [D, D]^T, bf16 weights.
absl::StatusOr<Measurement> MeasureLinear(BenchDevice* device, int rows, int D);

enum class Read { kForward, kFeedback, kBoth };
// What one layer reads of its state, which is in `dtype`, for one new token of each sequence.
absl::StatusOr<Measurement> MeasureStateRead(BenchDevice* device, const ModelConfig& config, Read read,
                                             int batch, int context, DType dtype = DType::kBF16);
// Forward attention of a chunk of one prompt.
absl::StatusOr<Measurement> MeasureAttend(BenchDevice* device, const ModelConfig& config, int rows,
                                          int context, DType dtype = DType::kBF16);
// Scores and P s of the feedback for one block of `rows` rows of each sequence.
absl::StatusOr<Measurement> MeasureFeedbackRead(BenchDevice* device, const ModelConfig& config, int batch,
                                                int rows, int context, DType dtype = DType::kBF16);
// The triangle of such a block, its scores and the past being read already.
absl::StatusOr<Measurement> MeasureSolve(BenchDevice* device, const ModelConfig& config, int batch, int rows);

enum class Draw { kGreedy, kAll, kTopP };
// A token of each row of logits.
absl::StatusOr<Measurement> MeasureSample(BenchDevice* device, int rows, int vocab_size, Draw draw);

}  // namespace sessa
