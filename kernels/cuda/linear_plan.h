// How linears by kernels of our own are cut up, on the host: pure functions. The order of a row's sum is the
// split of k, which depends on the weights and the path alone, never on the rows.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernels.h"

namespace sessa::cuda {

enum class LinearPath { kOneRow, kFewRows, kTensorCores, kManyRows };

// Of one launch on `rows` rows and num_tiles tiles of kTile columns.
struct LinearPlan {
  LinearPath path;
  int block_rows, num_row_blocks;  // rows of a thread block, and how many share the rows
  int split, num_splits;           // dimensions of k of a thread block, a multiple of 64
  int64_t num_floats;              // of partial sums: [row blocks, tiles, splits, block_rows, kTile]
  int64_t num_counters;            // [row blocks, tiles]
};
// tensor_cores: for more than kFewQueries rows of bf16 weights (tensor_linear.cu), and at most kMaxQueries.
// has_gate: there are tasks of two products, which are joined as splits are.
LinearPlan PlanLinear(int rows, int k, int num_tiles, DType dtype, bool tensor_cores, bool has_gate = false);

// How many of the rows go into one launch, so that each reads the weights once and its partial sums stay
// within what the L2 cache holds, as far as both can be had: the weights count for more.
int LinearRowsAtOnce(int rows, int k, int num_tiles, DType dtype, bool tensor_cores, bool has_gate = false);

}  // namespace sessa::cuda
