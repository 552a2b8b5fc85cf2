#include "kernels/cuda/linear_plan.h"

#include <algorithm>

namespace sessa::cuda {
namespace {

// Of the partial sums of one launch; about the L2 cache of an H100.
constexpr int64_t kScratchFloats = int64_t{8} << 20;
constexpr int kMinTensorSplit = 256;
// About as many bytes of weights for a thread block, and of int8 two stages.
constexpr int DotSplit(DType dtype) { return dtype == DType::kI8 ? 512 : 256; }
constexpr int kTensorRows = 16;  // a fragment's

// A block goes through k in stages of 64; its beginning and end cost about as much as four. Taken is the
// split that is done first, by counting rounds of blocks: 132 multiprocessors of an H100 run four of these
// each at once. (Not asked of the device, as the split decides the order of sums.) So 224 tiles of 4096
// dimensions are cut in two, where cuts of 256 would leave seven rounds and eight times the partial sums.
int TensorSplit(int k, int num_tiles) {
  constexpr int kStage = 64, kOverhead = 4, kAtOnce = 4 * 132;
  int best = kMinTensorSplit;
  int64_t least = -1;
  for (int parts = 1; parts <= CeilDiv(k, kMinTensorSplit); ++parts) {
    const int split = RoundUp(CeilDiv(k, parts), kStage);
    const int64_t blocks = int64_t{num_tiles} * CeilDiv(k, split);
    const int64_t cost = (blocks + kAtOnce - 1) / kAtOnce * (split / kStage + kOverhead);
    if (least < 0 || cost < least) least = cost, best = split;
  }
  return best;
}

LinearPath PathOf(int rows, DType dtype, bool tensor_cores) {
  if (rows == 1) return LinearPath::kOneRow;
  if (rows <= kFewQueries) return LinearPath::kFewRows;
  return tensor_cores && dtype == DType::kBF16 && rows <= kMaxQueries ? LinearPath::kTensorCores
                                                                      : LinearPath::kManyRows;
}

int BlockRows(LinearPath path, int rows) {
  switch (path) {
    case LinearPath::kOneRow: return 1;
    case LinearPath::kFewRows: return kFewQueries;
    case LinearPath::kTensorCores: return RoundUp(rows, kTensorRows);
    case LinearPath::kManyRows: return kMaxQueries;
  }
  return 1;
}

}  // namespace

LinearPlan PlanLinear(int rows, int k, int num_tiles, DType dtype, bool tensor_cores, bool has_gate) {
  LinearPlan plan = {};
  plan.path = PathOf(rows, dtype, tensor_cores);
  plan.block_rows = BlockRows(plan.path, rows);
  plan.num_row_blocks = CeilDiv(rows, plan.block_rows);
  plan.split = plan.path == LinearPath::kTensorCores ? TensorSplit(k, num_tiles) : DotSplit(dtype);
  plan.num_splits = CeilDiv(k, plan.split);
  const int64_t tiles = int64_t{plan.num_row_blocks} * num_tiles;
  const bool has_partials = plan.num_splits > 1 || has_gate;
  plan.num_floats = has_partials ? tiles * plan.num_splits * plan.block_rows * kTile : 0;
  plan.num_counters = tiles;
  return plan;
}

int LinearRowsAtOnce(int rows, int k, int num_tiles, DType dtype, bool tensor_cores, bool has_gate) {
  if (tensor_cores && dtype == DType::kBF16) return std::min(rows, kMaxQueries);
  while (rows > kMaxQueries &&
         PlanLinear(rows, k, num_tiles, dtype, tensor_cores, has_gate).num_floats > kScratchFloats)
    rows = RoundUp(rows / 2, kMaxQueries);  // whole blocks: each reads the weights
  return rows;
}

}  // namespace sessa::cuda
