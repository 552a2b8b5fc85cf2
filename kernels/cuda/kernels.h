// The device operations of the CUDA backend, as its host code sees them: each enqueues a kernel or two.
// Pointers name device memory unless it says otherwise. All results are the same bits for a row whatever rows
// run beside it: every sum runs in an order given by absolute positions and sizes, never by the batch.
#pragma once

#include <cstdint>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace sessa::cuda {

inline constexpr int kTile = 64;        // tokens of a softmax tile, and columns of a linear's tile
inline constexpr int kMaxQueries = 64;  // queries that share a read of keys and values

constexpr int RoundUp(int x, int m) { return (x + m - 1) / m * m; }
// Rows of weights, keys and values are padded with zeros to whole 16-byte loads in either type.
constexpr int Padded(int n) { return RoundUp(n, 8); }

// ---- elementwise.cu ----
void Embed(cudaStream_t stream, const int32_t* ids, const void* table, DType dtype, Matrix x);
void LayerNorm(cudaStream_t stream, Matrix x, const float* weight, const float* bias, float eps, Matrix y);
void Gelu(cudaStream_t stream, Matrix x);
void Multiply(cudaStream_t stream, Matrix a, Matrix b, Matrix y);
void Add(cudaStream_t stream, Matrix a, Matrix y);
void GatherRows(cudaStream_t stream, Matrix x, const int32_t* rows, Matrix y);
// cos, sin [num_rows, half] of position * inv_freq[i], the product in float32.
void RopeAngles(cudaStream_t stream, const int32_t* positions, const float* inv_freq, int num_rows, int half,
                float* cos, float* sin);
void Rope(cudaStream_t stream, Matrix x, int head_dim, const float* cos, const float* sin);
void Gamma(cudaStream_t stream, Matrix u, const float* gamma_ctx, const float* gamma_bias, float gamma_max,
           float* gamma);
// y [rows, stride] in bf16, the columns from x.cols on zero.
void RoundRows(cudaStream_t stream, Matrix x, void* y, int stride);

// ---- linear.cu ----
// y = x W^T + b, x in float32, by dot products in float32. For few rows, where reading W is the work.
struct LinearTask {
  const void* weight;  // [n, Padded(k)]
  const float* bias;   // [n] or null
  Matrix y;            // [rows, n]
  int n, first_tile;   // first_tile: filled in by Linear
};
inline constexpr int kMaxLinearTasks = 8;
// Scratch that Linear needs, for tasks with this many columns in all.
struct LinearScratch {
  float* partial;      // [LinearPartialFloats]
  unsigned* counters;  // [LinearCounters], zero before and after
};
int64_t LinearPartialFloats(int rows, int k, int num_tiles);
int64_t LinearCounters(int rows, int num_tiles);
void Linear(cudaStream_t stream, Matrix x, LinearTask* tasks, int num_tasks, DType dtype,
            LinearScratch scratch);

// ---- append.cu ----
// Where the step's rows lie in their sequences.
struct Span {
  int first_row, num_rows, start;
  const int32_t* pages;
};
// Vectors of one kind in the pages of a layer: page p, head h, slot i at ((p * num_heads + h) * page_size +
// i) * Padded(dim).
struct PagedVectors {
  void* data;
  DType dtype;
  int page_size, num_heads, dim;
  int first_page, num_pages;  // the page ids that are here
};
// Rows rows[0 .. num_rows) of x (null: all in order), [num_heads * dim] each; row_span[r]: the span of batch
// row r. Rows whose page is not here are skipped.
void Append(cudaStream_t stream, Matrix x, const int32_t* rows, int num_rows, const Span* spans,
            const int32_t* row_span, PagedVectors to);
// The other way: y [n, num_heads * dim] of the first n tokens of one sequence, for tests.
void ReadBack(cudaStream_t stream, PagedVectors from, const int32_t* pages, int n, float* y);

// ---- paged_read.cu ----
// Queries of one sequence that share their keys: num_rows rows times num_heads neighbouring heads, at most
// kMaxQueries; query i is row first_row + i / num_heads, head first_head + i % num_heads.
struct ReadBlock {
  int first_row, num_rows, start;
  int first_head, num_heads, kv;
  int wave_row;  // of the first row, in the partials of a feedback read
  const int32_t* pages;
  int64_t tile_base;  // of the block's first tile in the scratch; tile t is at tile_base + t (in units of
                      // queries for few queries, of tiles for many)
};
// An attention over pages in softmax tiles of kTile tokens. Tile t belongs to chain t % num_chains, a chain
// is a running softmax over its tiles in order, and the chains with chain % num_ranks == rank are read.
struct PagedRead {
  Matrix q;  // [rows, heads * dim]
  PagedVectors keys, values;
  float scale;
  bool feedback;  // each row sees the past alone, and its block's own tile is left to the end
  int num_chains, rank, num_ranks;
  // Scratch: of each tile and query the maximum and the sum [.., 2]; and its weighted values [..,
  // Padded(dim)] or, for many queries, its probabilities [.., kTile] (for the own tile of few queries too, at
  // own_p [block][kMaxQueries][kTile]).
  float *tile_stats, *tile_values, *own_p;
  // Out, forward: [rows, heads * dim].
  Matrix out;
  // Out, feedback: as FeedbackPartials.
  float *max, *sum, *acc, *p;
  int partial_rows, width;
};
// Blocks of at most kFewQueries queries, and others. max_tiles: of any block.
inline constexpr int kFewQueries = 8;
void ReadFewQueries(cudaStream_t stream, const PagedRead& read, const ReadBlock* blocks, int num_blocks,
                    int max_queries, int max_tiles);
void ReadManyQueries(cudaStream_t stream, const PagedRead& read, const ReadBlock* blocks, int num_blocks,
                     int max_tiles);

// ---- feedback_solve.cu ----
struct FeedbackSolveArgs {
  const float *max, *sum, *acc, *p;  // as FeedbackPartials
  int partial_rows, width;
  Matrix f, s;         // [rows, D]
  const float* gamma;  // [rows]
  bool round_to_bf16;  // the states that later rows read, as the cache will round them
  int begin, end;      // columns
};
void FeedbackSolve(cudaStream_t stream, const FeedbackSolveArgs& args, const ReadBlock* blocks,
                   int num_blocks);

}  // namespace sessa::cuda
