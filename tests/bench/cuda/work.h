// What the equations ask of a device for each CUDA benchmark: FLOPs, and the fewest bytes through its memory
// (each input read once, each result written once). Weights and cached state are bf16, activations float32.
// Pure: tested without a GPU.
#pragma once

#include "engine/config.h"

namespace sessa {

struct Work {
  double bytes = 0, flops = 0;
};
constexpr Work operator+(Work a, Work b) { return {a.bytes + b.bytes, a.flops + b.flops}; }

// The shapes of the performance targets. Heads of 64 dimensions in A and of 128 in B and C, K = H / 4.
enum class Shape { kA, kB, kC };
ModelConfig ConfigOf(Shape shape);
constexpr char NameOf(Shape shape) { return "ABC"[static_cast<int>(shape)]; }

Work LinearWork(int rows, int n, int k);
// Of `batch` sequences with `context` cached tokens and `rows` new rows each. The feedback read: weighted
// states of the past, and scores of the past and of the rows among each other.
Work FeedbackReadWork(const ModelConfig& config, int batch, int rows, int context);
Work AttendWork(const ModelConfig& config, int batch, int rows, int context);
// A triangular solve alone: unit lower [rows, rows], float32, D right-hand sides.
Work StrsmWork(int rows, int D);
// A whole step. Every layer's weights once, the output head for one row of each sequence.
Work StepWork(const ModelConfig& config, int batch, int rows, int context);

}  // namespace sessa
