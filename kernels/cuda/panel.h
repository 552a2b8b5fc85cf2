// The feedback of many rows at once (prefill, state in bf16 or int8), and forward attention of heads too wide
// for fused_attention.cu, on the tensor cores: scores and weighted values as two products over a panel of
// keys that stays in the L2 cache, and the triangle inside the block solved by columns. What the kernels of
// panel_scores.cu, panel_values.cu and panel_solve.cu are told; the plan is host bookkeeping alone.
//
// A block is up to kMaxPanelQueries queries (rows x heads) of one sequence. Its keys are read in passes of
// several key tiles, so that a pass's weights take at most 32 MiB. Everything that decides the order of a sum
// (tiles, passes, splits) comes from the block itself, never from what runs beside it.
//
// Weights are powers of two of scores: w = exp2(x - m), x the score times log2 e, m the row's largest x in
// the key tile, rounded up to a whole number. So what later joins tiles, passes and splits multiplies by
// powers of two, which is exact in bf16. Method: split softmax (Milakov and Gimelshein 2018;
// FlashAttention-2, Dao 2023).
#pragma once

#include <vector>

#include "kernels/cuda/kernels.h"

namespace sessa::cuda {

inline constexpr int kPanelQueries = 128;  // queries of a thread block
inline constexpr int kPanelKeys = 256;     // keys of a key tile
inline constexpr int kPanelColumns = 256;  // of values, of a thread block
inline constexpr int kMaxPanelQueries = 2048;
inline constexpr int kPanelDepth = 64;  // columns of a stage: panels are zero up to a multiple of it
inline constexpr int kSolveRows = 64;   // rows of an inverse
constexpr int NumQueryTiles(int num_queries) { return CeilDiv(num_queries, kPanelQueries); }

// One block in one pass. Offsets count elements of the arrays of PanelScratch.
struct PanelBlock {
  int first_row, num_rows, start;
  int first_head, num_heads, kv;
  int wave_row;  // of the first row, in the partials of a feedback read
  const int32_t* pages;
  int64_t panel_row;          // of its first query in the panels, a multiple of kPanelQueries
  int first_tile, num_tiles;  // key tiles of the pass; those of a rank are counted alone
  int64_t weights;            // [PaddedQueries][num_tiles][kPanelKeys]
  int64_t stats;              // [num_tiles][PaddedQueries][2]
  int first_item;             // of the pass's score items: query tiles x key tiles
  int first_query_tile;       // among the pass's query tiles
  int num_splits;             // of the keys, each a part of every pass
  int pass;
  bool is_last_pass;
};

// What a launch covers: neighbours among the plan's blocks.
struct PanelPass {
  int first = 0, count = 0;  // of blocks
  int num_items = 0, num_query_tiles = 0, max_splits = 0;
  bool operator==(const PanelPass&) const = default;
};

struct PanelPlan {
  std::vector<PanelBlock> blocks;
  std::vector<PanelPass> passes;
  int64_t panel_rows = 0;                     // of all blocks
  int64_t num_weights = 0, num_stats = 0;     // of the largest pass
  const PanelBlock* device_blocks = nullptr;  // the same blocks
};

// The keys inside the blocks of a feedback read: one pass. tile_base, first_item of the blocks are not used.
PanelPlan MakeOwnPanelPlan(const std::vector<ReadBlock>& blocks);
// The keys in the cache: of a feedback read those before the block, of a forward attention those up to and
// with each row. Blocks without any have a pass all the same, which says so in their partials.
struct PanelPlanOptions {
  bool feedback = false;
  int dim = 0;  // of keys and values
  int num_ranks = 1;
  // Query tiles x key tiles of a block in one pass: its weights take 32 MiB, most of the L2 cache of an H100.
  int pass_tiles = (kMaxPanelQueries / kPanelQueries) * 32;
  // Thread blocks that fill the device: the keys are split as long as there are fewer. Not asked of the
  // device, as the splits decide the order of sums; an H100 has 132 multiprocessors.
  int full_device = 132;
};
PanelPlan MakePanelPlan(const std::vector<ReadBlock>& blocks, const PanelPlanOptions& options);

// Device memory. Strides of the panels: PanelStride(dim).
struct PanelScratch {
  void *queries, *keys;         // bf16 [panel_rows][PanelStride]; keys: the blocks' own
  void *own_weights, *weights;  // bf16
  float *own_stats, *stats;
  float* diagonal;  // [panel_rows][kSolveRows]: the weights of a row's own 64 columns, in float32
  float* running;   // [2][kChains][panel_rows][2]: maximum and sum of each split, by turns of the passes
  float* inverses;  // [panel_rows / kSolveRows][kSolveRows][kSolveRows]
  float* terms;     // [panel_rows][kPanelTerms]: at kPanelShare and, for each key tile, from kPanelPowers on
  bool operator==(const PanelScratch&) const = default;
};
constexpr int PanelStride(int dim) { return RoundUp(dim, kPanelDepth); }
inline constexpr int kPanelShare = 0, kPanelPowers = 1;
inline constexpr int kPanelTerms = RoundUp(kPanelPowers + kMaxPanelQueries / kPanelKeys, 4);

struct PanelRead {
  Matrix q, k;  // [rows, heads * dim]; k: the step's own keys, of a feedback read
  PagedVectors keys, values;
  float scale;  // of the scores, with log2 e
  bool feedback;
  int rank, num_ranks;
  PanelScratch scratch;
  Matrix out;              // forward: [rows, heads * dim]
  float *max, *sum, *acc;  // feedback: as FeedbackPartials, but for max being one of x; chains that are not
                           // needed are empty
  int partial_rows, width;

  int64_t panel_rows;        // of the plan
  const PanelBlock* blocks;  // of the pass
  int num_blocks;
  bool operator==(const PanelRead&) const = default;
};
// With panel_rows, blocks and num_blocks of one pass of the plan.
PanelRead OfPass(PanelRead read, const PanelPlan& plan, const PanelPass& pass);
// A feedback read begins with the keys inside the blocks, the one pass of their plan; then come the passes of
// the plan of the same blocks' keys in the cache. round: the pass is the first of its blocks, and no
// ReadOwnPanels was before it.
void ReadOwnPanels(cudaStream_t stream, const PanelRead& read, const PanelPass& pass);
void ReadPanels(cudaStream_t stream, const PanelRead& read, const PanelPass& pass, bool round);
// The last part of ReadPanels.
void WeighPanelValues(cudaStream_t stream, const PanelRead& read, const PanelPass& pass);

// As FeedbackSolveCall, of what these left in the partials and in the scratch.
struct PanelSolve {
  const float *max, *sum, *acc;
  int partial_rows, width;
  Matrix f, s, g, gated;  // gated = s g; null: not wanted
  const float* gamma;
  int begin, end;
  PagedVectors states;  // where the states go; null: nowhere
  PanelScratch scratch;
  int64_t panel_rows;  // of the own plan, as what follows
  const PanelBlock* blocks;
  int num_blocks, max_rows;
  bool operator==(const PanelSolve&) const = default;
};
void SolvePanels(cudaStream_t stream, const PanelSolve& solve);

}  // namespace sessa::cuda
