// The device operations of the CUDA backend, as its host code sees them: each enqueues a kernel or two, and
// the arguments, which compare member by member, are all that the launches depend on (operation_list.h).
// Pointers name device memory. All results are the same bits for a row whatever rows
// run beside it: every sum runs in an order given by absolute positions and sizes, never by the batch.
#pragma once

#include <cstdint>

#include "kernels/cuda/runtime.h"
#include "kernels/round.h"
#include "kernels/sample.h"
#include "kernels/state.h"
#include "kernels/tensor.h"
#include "kernels/tile.h"

namespace sessa::cuda {

inline constexpr int kTile = kTileTokens;  // and columns of a linear's tile
inline constexpr int kMaxQueries = 64;     // queries that share a read of keys and values
inline constexpr int kChains = 8;  // of the feedback read: kFeedbackChains, whose header is the host's

// Rows of weights, keys and values are padded with zeros to whole 16-byte loads in either type.
constexpr int Padded(int n) { return RoundUp(n, 8); }
// A row of weights. Int8: whole groups, each with a scale.
constexpr int WeightStride(DType dtype, int k) { return dtype == DType::kI8 ? RoundUp(k, 64) : Padded(k); }

// Where an operation is enqueued, and on how many rows. A launch of a decode step may have more rows than the
// step (they are padding, so that a captured graph fits every step of its bucket): then *live of them are
// computed, and of the others nothing is read or written. Null: all are.
struct RowLaunch {
  cudaStream_t stream;
  const int32_t* live = nullptr;
  bool operator==(const RowLaunch&) const = default;
};

// ---- elementwise.cu ----
// Ids below 0 stand for `sampled` (Backend::Embed).
void Embed(RowLaunch on, const int32_t* ids, const int32_t* sampled, const void* table, DType dtype,
           Matrix x);
void GatherRows(RowLaunch on, Matrix x, const int32_t* rows, Matrix y);
// cos, sin [num_rows, half] of position * inv_freq[i], the product in float32; both times `scale`.
void RopeAngles(RowLaunch on, const int32_t* positions, const float* inv_freq, float scale, int num_rows,
                int half, float* cos, float* sin);
// The epilogue of a linear layer that left its results in x, but for kSiluGate. x may be y.
void FinishRows(RowLaunch on, Matrix x, Epilogue epilogue, Matrix y);
// That epilogue: y = silu(gate) * up.
void GateRows(RowLaunch on, Matrix gate, Matrix up, Matrix y);
// The input x of a linear layer, or its norm (kernels/backend.h), as y [rows, stride] in `dtype`; the columns
// from x.cols on and the rows that are padding are zero.
struct RowNorm {
  const float *weight, *bias;  // bias: null, it is an rms norm
  float eps;
  int groups;  // of an rms norm
  bool operator==(const RowNorm&) const = default;
};
void PackRows(RowLaunch on, Matrix x, DType dtype, void* y, int stride);
void NormRows(RowLaunch on, Matrix x, RowNorm norm, DType dtype, void* y, int stride);

// ---- sample.cu ----
// Backend::Sample, a task a row. A token does not depend on the rows beside it.
struct SampleTask {
  SampleRow row;
  const SampleEdit* edits;  // [row.num_edits]
  float* scores;            // [V], scratch of a row with edits
};
void Sample(RowLaunch on, Matrix logits, const SampleTask* tasks, int num_tasks, int32_t* tokens);

// ---- linear.cu ----
// y = x W^T + b, x in float32, by dot products in float32. For few rows, where reading W is the work. Int8
// weights count as what they stand for, which float32 holds exactly.
struct LinearTask {
  const void* weight;  // [n, WeightStride(dtype, k)]
  const void* scale;   // int8: bf16 [n, ceil(k / 64)]; else null
  const float* bias;   // [n] or null
  Matrix y;            // [rows, n]
  int n, first_tile;   // first_tile: filled in by Linear
  Epilogue epilogue;
  // Of the two products that a silu gate takes: neighbours in one launch, in this order.
  enum class Half { kNone, kGate, kUp } half;
  bool operator==(const LinearTask&) const = default;
};
inline constexpr int kMaxLinearTasks = 8;
struct LinearTasks {
  LinearTask task[kMaxLinearTasks];
  int count;
  bool operator==(const LinearTasks&) const = default;
};
// Int8 weights [n, WeightStride] in bf16, rounded: [n, Padded(k)].
void UnpackWeights(cudaStream_t stream, const LinearTask& task, int k, void* to);
struct LinearScratch {  // as LinearPlan of the launch says
  float* partial;
  unsigned* counters;  // zero before and after
  bool operator==(const LinearScratch&) const = default;
};
// The rows [first_row, last_row) of x, at most LinearRowsAtOnce. tensor_cores: as PlanLinear.
void Linear(RowLaunch on, Matrix x, int first_row, int last_row, const LinearTasks& tasks, DType dtype,
            bool tensor_cores, LinearScratch scratch);

// ---- append.cu ----
// Where the step's rows lie in their sequences.
struct Span {
  int first_row, num_rows, start;
  const int32_t* pages;
};
// Vectors of one kind in the pages of a layer: page p, head h, slot i at ((p * num_heads + h) * page_size +
// i) * Padded(dim). Of int8 (kernels/cpu/int8_state.h says what the values are) a page's vectors of a head,
// each of StateWidth bytes, are followed by their exponents: for each group of 64 columns those of the page's
// slots, side by side, so that 16 tokens' are one copy.
constexpr int StateWidth(DType dtype, int dim) {
  return dtype == DType::kI8 ? RoundUp(dim, 16) : Padded(dim);
}
constexpr int StateGroups(int dim) { return CeilDiv(dim, kStateGroup); }
// What a token takes of a head, in elements.
constexpr int StateElements(DType dtype, int dim) {
  return StateWidth(dtype, dim) + (dtype == DType::kI8 ? StateGroups(dim) : 0);
}
struct PagedVectors {
  void* data;
  DType dtype;
  int page_size, num_heads, dim;
  int first_page, num_pages;  // the page ids that are here
  bool operator==(const PagedVectors&) const = default;
};
// As AppendCall and FeedbackRows, with where the step's rows go. row_span[r]: the span of batch row r.
struct AppendArgs {
  int rows;
  Matrix q, k, v;
  const float *q_norm, *k_norm;  // null: there are none
  float norm_eps;
  const float *cos, *sin;  // [rows, half] of RopeAngles
  int half;                // 0: no rope
  const Span* spans;
  const int32_t* row_span;
  PagedVectors keys, values;
  // Of the feedback; no columns: there is none.
  Matrix k_b, u;
  const float *gamma_ctx, *gamma_bias;
  float gamma_max;
  float* gamma;
  PagedVectors feedback_keys;
  bool operator==(const AppendArgs&) const = default;
};
void AppendRows(RowLaunch on, const AppendArgs& args);
// Rows rows[0 .. num_rows) of x, [num_heads * dim] each. Rows whose page is not here are skipped.
void Append(RowLaunch on, Matrix x, const int32_t* rows, int num_rows, const Span* spans,
            const int32_t* row_span, PagedVectors to);
// The other way: y [n, num_heads * dim] of the first n tokens of one sequence, for tests.
void ReadBack(cudaStream_t stream, PagedVectors from, const int32_t* pages, int n, float* y);

// ---- paged_read.cu ----
// Queries of one sequence that share their keys: num_rows rows times num_heads neighbouring heads, at most
// kMaxQueries (fused attention: kMaxFusedQueries); query i is row first_row + i / num_heads, head first_head
// + i % num_heads. A block of no rows is padding.
struct SharedRow;
struct ReadBlock {
  int first_row, num_rows, start;
  int first_head, num_heads, kv;
  int wave_row;  // of the first row, in the partials of a feedback read
  const int32_t* pages;
  int first_tile;     // that a row of the block sees: not 0 in a window
  int64_t tile_base;  // of tile 0 in the scratch, which has one place for each tile from first_tile on and
                      // query (many queries: kMaxQueries of them)
  int first_item;     // of the block, among the work items of its launch: one for each tile, or some
  int zero_item = 0;  // what tile 0 would be: first_item - the first tile that is an item
  // Of a read that several sequences share (few queries): [num_rows], instead of first_row and tile_base.
  const SharedRow* rows = nullptr;
};
// A row of theirs. What a tile leaves for the i-th head goes where the row's own block looks for it: at
// tile_base + tile * stride + i.
struct SharedRow {
  int row, stride;
  int64_t tile_base;
};
// What a read of some blocks has to do and where its scratch is. In device memory, so that the same launch
// serves contexts of any length.
struct ReadWork {
  int num_items;
  // The last items are those of blocks that are shared, of which there may be more in the next step.
  int own_items, num_shared;
  const ReadBlock* shared;
  // Of each tile and query the maximum and the sum [.., 2]; and its weighted values [.., Padded(dim)] or, for
  // many queries, its probabilities [.., kTile] (for the own tile of few queries too, at own_p [block]
  // [kMaxQueries][kTile]).
  float *tile_stats, *tile_values, *own_p;
};
// An attention over pages in softmax tiles of kTile tokens. Tile t belongs to chain t % num_chains, a chain
// is a running softmax over its tiles in order, and the chains with chain % num_ranks == rank are read.
struct PagedRead {
  Matrix q;  // [rows, heads * dim]
  PagedVectors keys, values;
  float scale;
  int window;     // of forward attention: the tokens that a row sees, with itself; 0: all
  bool feedback;  // each row sees the past alone, and its block's own tile is left to the end
  int num_chains, rank, num_ranks;
  const ReadWork* work;
  const ReadBlock* blocks;
  int num_blocks, max_queries;
  int tile_queries;  // the most queries of a block, shared ones too; few queries alone
  // Out, forward: [rows, heads * dim].
  Matrix out;
  // Out, feedback: as FeedbackPartials.
  float *max, *sum, *acc, *p;
  int partial_rows, width;
  const int32_t* live;  // as RowLaunch: instead of partial_rows
  bool operator==(const PagedRead&) const = default;
};
// num_ctas: thread blocks that share the work items, any number; the result does not depend on it.
void ReadManyQueries(cudaStream_t stream, const PagedRead& read, int num_ctas);

// ---- few_read.cu ----
// Reads of blocks of at most kFewQueries queries, of one dtype and each with its own scratch.
inline constexpr int kFewQueries = 8;
// Of that many dimensions: the queries have to be in shared memory. Blocks of more go to ReadManyQueries.
constexpr int MaxFewQueries(int dim) { return dim <= 4096 ? kFewQueries : 1; }
inline constexpr int kMaxDim = 32768;  // of keys and values
struct FewReads {
  PagedRead read[2];
  int count;
  bool operator==(const FewReads&) const = default;
};
void ReadFewQueries(cudaStream_t stream, const FewReads& reads, int num_ctas);
// How its thread blocks share the work items of two reads: the large ones (the first read's, of two) are
// dealt out one by one, the small ones in runs, so that all blocks read about as much. Where the run of block
// `index` begins; that of the next block is its end.
constexpr int BeginOfRun(int index, int num_blocks, int num_large, float large, int num_small, float small) {
  const int each = num_large / num_blocks, more = num_large % num_blocks;  // the first `more` have one more
  const float level = (static_cast<float>(num_large) * large + static_cast<float>(num_small) * small) /
                      static_cast<float>(num_blocks);
  const float room = static_cast<float>(more) * (level - static_cast<float>(each + 1) * large) / small;
  const int of_first = room <= 0                              ? 0
                       : room < static_cast<float>(num_small) ? static_cast<int>(room)
                                                              : num_small;
  return static_cast<int>(index < more ? int64_t{of_first} * index / more
                                       : of_first + int64_t{num_small - of_first} * (index - more) /
                                                        (num_blocks - more));
}

// ---- fused_attention.cu ----
// As ReadManyQueries, on the tensor cores, of forward attention alone; state in bf16 or int8, heads of at
// most kMaxFusedDim dimensions. Needs no scratch and has no work items.
inline constexpr int kMaxFusedDim = 128;
inline constexpr int kMaxFusedQueries = 128;  // of a block
void FusedAttention(cudaStream_t stream, const PagedRead& read, int num_ctas);

// ---- feedback_solve.cu ----
struct FeedbackSolveArgs {
  const float *max, *sum, *acc, *p;  // as FeedbackSolveCall
  int num_ranks, partial_rows, width;
  const int32_t* live;  // as RowLaunch: instead of partial_rows
  Matrix f, s;          // [rows, D]
  Matrix g, gated;      // gated = s g; null: not wanted
  PagedVectors states;  // s goes there too; null: not wanted
  const float* gamma;   // [rows]
  DType state_dtype;    // the states that later rows read are rounded as the cache will round them
  int begin, end;       // columns
  bool operator==(const FeedbackSolveArgs&) const = default;
};
// by_inverse: for blocks of many rows, of which later ones then read the states before they are rounded; not
// of int8. Of int8, begin is a multiple of kStateGroup, and so is end or it is the last column's.
void FeedbackSolve(cudaStream_t stream, const FeedbackSolveArgs& args, const ReadBlock* blocks,
                   int num_blocks, bool by_inverse);

// ---- scan.cu ----
inline constexpr int kMaxScanStates = 256;  // columns of a head's state
// The rows of a sequence and its slots, as RowSpan. One of no rows is padding.
struct SlotSnapshot {
  int row;
  int32_t slot;
};
struct SlotSpan {
  int first_row, num_rows, start;
  int32_t slot, state_from;
  int num_snapshots;
  const SlotSnapshot* snapshots;
};
struct Slots {
  float* data;
  int64_t floats;  // of each
  constexpr float* slot(int i) const { return data + i * floats; }
  bool operator==(const Slots&) const = default;
};
// As ScanCall.
struct ScanArgs {
  Matrix z, xbc, dt, out;
  int num_heads, head_dim, num_groups, state_size, conv_kernel;
  const int32_t* head_group;
  const float *conv_weight, *conv_bias, *a_log, *d, *dt_bias;  // conv_bias: or null
  Slots conv, ssm;
  const SlotSpan* spans;
  int num_spans;
  bool operator==(const ScanArgs&) const = default;
};
void ScanRows(cudaStream_t stream, const ScanArgs& args);

}  // namespace sessa::cuda
