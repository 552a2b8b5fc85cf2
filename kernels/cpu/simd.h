// The vector loops of the CPU backend, one call for each work item; threads are the caller's business. Built
// by Highway for AVX2, AVX-512 and a portable fallback; the best one is chosen at run time.
//
// Exactness. Every product C[m][n] = sum_k A[m][k] B[k][n] here is one chain of fused multiply-adds over k =
// 0, 1, ..., one chain for each element, whatever m, tiling or thread count: vectors run along n, never along
// k. That makes a row's result independent of the batch it runs in, and prefill equal to decode bit for bit.
// The softmax chains are likewise cut at absolute positions (tiles of kTile tokens), never at chunk borders.
//
// Memory formats. "Panels" of a matrix B [K, N]: [ceil(N / 16)][K][16] of f32, and [ceil(N / 16)][ceil(K /
// 2)][16][2] of bf16, which unpacks two rows with one operation each; zero padded. Weights are stored so (B =
// W^T), and so are cached keys: 16 tokens make one panel, k is the dimension; hence scores are the same loop
// as a linear layer. Cached values are rows, of f32 one token each, of bf16 pairs of tokens [width][2].
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/round.h"
#include "kernels/tensor.h"
#include "kernels/tile.h"

// Before a loop over an array of vectors that must live in registers. Not under a sanitizer, which checks
// every access: there the unrolled code takes minutes to compile.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SESSA_UNROLL
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SESSA_UNROLL
#endif
#endif
#ifndef SESSA_UNROLL
#define SESSA_UNROLL _Pragma("GCC unroll 16")
#endif

namespace sessa::cpu {

inline constexpr int kPanel = 16;  // columns of a panel = tokens of a key panel
inline constexpr int kTile = kTileTokens;
inline constexpr int kGroups = 8;  // softmax chains of the feedback read: tile i belongs to chain i % kGroups
inline constexpr int kRowTile = 12;  // rows of a packed A tile, at most

// The left side of a product, [m, k]: up to kFewRows rows are read as they lie; more are packed into tiles of
// almost equal height, [tiles][k][kRowTile] (rows a power of two apart would fall into the same cache sets).
inline constexpr int kFewRows = 4;
constexpr int NumRowTiles(int m) { return CeilDiv(m, kRowTile); }
constexpr int FirstRowOfTile(int tile, int m) {
  return static_cast<int>(static_cast<int64_t>(m) * tile / NumRowTiles(m));
}
constexpr int64_t PackedSize(int m, int k) { return static_cast<int64_t>(NumRowTiles(m)) * kRowTile * k; }
// Writes the tiles [first, last) of A (row stride lda).
void PackRows(const float* a, int64_t lda, int m, int k, int first, int last, float* packed);

// Activations rounded to bf16 (to nearest even), in pairs along k, for the dot product instruction of AVX-512
// BF16: two products and a float32 sum at the rate of one float32 FMA, without unpacking. Each output is one
// chain over the pairs of k. Only on AMD's cores (Zen 4: twice the rate of the FMA kernel); elsewhere the
// instruction was seen to run at half the FMA rate (Intel, before AMX), and unpacking to float32 wins.
struct Bf16Pair {
  uint32_t bits;
};
bool HasBf16Dot();
// As PackRows, [tiles][ceil(k / 2)][kRowTile]; up to kFewRows rows are [m][ceil(k / 2)]. Zero padded.
constexpr int Pairs(int k) { return (k + 1) / 2; }
constexpr int64_t PackedPairs(int m, int k) {
  return m <= kFewRows ? static_cast<int64_t>(m) * Pairs(k) : PackedSize(m, Pairs(k));
}
void PackPairs(const float* a, int64_t lda, int m, int k, int first, int last, Bf16Pair* packed);

// Weights [n, k] of f32 or bf16: panels of W^T.
struct Panels {
  const void* data;
  DType dtype;
  int n, k;
};
// A panel of K = k takes PanelRows(k) * 16 elements. One of its columns, and row `row` of rows (pairs) of
// `stride` elements for each: bf16 rounds to nearest even.
constexpr int PanelRows(int k) { return RoundUp(k, 2); }
void StoreColumn(const float* x, int k, DType dtype, void* panel, int column);
// The columns 0 to n of a panel, from n rows of k bf16 values, one after the other and at any address.
void StorePanel(const void* rows, int n, int k, void* panel);
void LoadColumn(const void* panel, int k, DType dtype, int column, float* x);
void StoreRow(const float* x, int n, DType dtype, void* rows, int64_t stride, int row);
void LoadRow(const void* rows, int64_t stride, int row, int n, DType dtype, float* x);

// C[:, 16 p .. 16 p + 16) = A W^T + bias for the panels p in [first, last). a: as PackRows leaves it when m >
// kFewRows; or pairs, as PackPairs leaves them (bf16 weights alone). scratch: LinearScratch(m, k) floats. c
// has columns for n outputs only; the padding is not written.
inline constexpr int kWideRows = 192;
constexpr int64_t LinearScratch(int m, int k) {
  return 2 * kPanel * (std::max<int64_t>(m, 2 * kFewRows) + (m >= kWideRows ? RoundUp(k, 2) : 0));
}
void LinearPanels(const float* a, int64_t lda, int m, const Panels& w, const float* bias, int first, int last,
                  float* c, int64_t ldc, float* scratch);
void LinearPanels(const Bf16Pair* a, int m, const Panels& w, const float* bias, int first, int last, float* c,
                  int64_t ldc, float* scratch);
void LayerNormRow(const float* x, const float* weight, const float* bias, float eps, int d, float* y);
void RmsNormRow(const float* x, const float* weight, float eps, int d, float* y);  // y may be x
// Pairs (x[2 i], x[2 i + 1]) of n / 2 turned: by cosines, each twice, and sines, the first of two negated.
void RotateRow(const float* cos, const float* sin, int n, float* x);
void MultiplyRow(const float* a, const float* b, int n, float* y);
// y [rows][ldy] becomes, in its first `columns`, what the epilogue makes of a linear's products z [rows][ldz]
// and of what y holds (kSiluGate: the second product); erf to float precision. z may be y.
void ApplyEpilogue(Epilogue epilogue, const float* z, int64_t ldz, int rows, int columns, float* y,
                   int64_t ldy);
float DotRow(const float* a, const float* b, int n);      // fixed order for a given n
void Store(const float* x, int n, DType dtype, void* y);  // round to nearest even
void Load(const void* x, int n, DType dtype, float* y);

// Cached keys (panels) and values (rows) of one sequence and head. Int8: as int8_state.h has both, strides in
// bytes.
struct PagedState {
  const int32_t* pages = nullptr;  // page table
  int page_size = 0;
  int page_offset = 0;  // subtracted from every page id (a rank that holds a part of the pages)
  DType dtype = DType::kF32;
  const void* keys = nullptr;    // [page][key_page_stride]: panels, PanelRows(dim) * 16 elements each
  int64_t key_page_stride = 0;   // elements
  const void* values = nullptr;  // [page][value_page_stride]: rows, value_row_stride elements a token
  int64_t value_page_stride = 0;
  int64_t value_row_stride = 0;  // a multiple of 16, at least value_dim rounded up
};

// Running softmax of m rows: maximum, denominator and weighted sum of values, as after a prefix of the tiles
// of a chain.
struct SoftmaxState {
  float* max;  // [m], -inf at first
  float* sum;  // [m], 0 at first
  float* acc;  // [m][acc_stride], 0 at first
  int64_t acc_stride;
};

// Extends `state` by the tiles first, first + step, ... < last. Row r sees the tokens at positions <
// visible[r]. q [m, dim], m <= kTile, as PackRows leaves it when m > kFewRows. With q_pairs, as PackPairs
// leaves them, the tiles before `dot_tiles`, which all rows see to the end, are read with bf16 dot products,
// queries and probabilities rounded (bf16 state alone). If `probabilities` is not null, the last tile's
// values enter only for positions below `value_limit` and that tile's unnormalised probabilities are kept
// there: [m][kTile] (the caller adds the rest).
struct AttendArgs {
  const float* q;
  int64_t ldq;
  int m;
  int dim;
  int value_dim;
  float scale;
  const int* visible;  // [m]
  int first, last, step;
  float* probabilities = nullptr;
  int value_limit = 0;
  const Bf16Pair* q_pairs = nullptr;
  int dot_tiles = 0;
  const int* first_visible = nullptr;  // [m]; row r sees the tokens from that position on; null: all
  // Of AttendOnTiles alone: whether the state is empty yet, whatever it holds, and whether it is complete
  // then. Between calls that share a chain it is in a form of their own.
  bool begins = true, ends = true;
};
void AttendTiles(const AttendArgs& args, const PagedState& cache, SoftmaxState state);

// The in-block rows of the feedback recurrence for columns [begin, end): with the joined softmax of all
// chains, s_t = f_t + gamma_t (base_t + w_t (acc_t + sum_{j < t in the block} p_tj s_j)), s_j rounded as the
// cache rounds it. A row tile takes the finished rows by GEMM, then substitutes inside itself; the order over
// j is that of decode.
struct SolveArgs {
  int m;             // rows of the block, at most kTile
  int group;         // the chain that the block's own tile belongs to; joined last
  const float* max;  // [kGroups][group_stride] then row
  const float* sum;
  int64_t group_stride;
  const float* acc;  // [kGroups][acc_group_stride] then [m][acc_stride]
  int64_t acc_group_stride;
  int64_t acc_stride;
  const float* probabilities;  // [m][kTile]
  int first_column;            // of the block's first token within its tile
  const float* f;              // [m][ldf]
  int64_t ldf;
  const float* gamma;  // [m]
  DType dtype;         // of the cached s
  float* s;            // [m][lds]
  int64_t lds;
};
inline constexpr int kSolveSlab = 256;  // columns joined at once
// Of int8 state `begin` is a multiple of kStateGroup, and so is `end`, or it is the last column's.
void FeedbackSolve(const SolveArgs& args, int begin, int end);

}  // namespace sessa::cpu
