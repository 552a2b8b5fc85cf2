// The triangle inside the blocks of panel.h: with everything but the block's own states joined,
//   s_i = f_i + share_i (past_i + sum_{j < i} w_ij s_j),   share_i = gamma_i / l_i.
//
// JoinKernel: a row's joined softmax, then either the inverse of a 64 x 64 triangle on the diagonal
// (triangle.cuh) or f and the past of 128 columns, which go to s. Grid: 64-row parts of the panels x
// (inverse, columns).
//
// TriangleKernel: a thread block owns 32 columns of s, which never mix with others, and goes down the rows,
// 64 at a time; no thread block waits for another. The states so far stay in shared memory (bf16, 128 KiB for
// 2048 rows); the weights stream from L2, where all thread blocks read the same: 4 MiB for 2048 rows, which
// sets the pace (64 bytes a cycle: 37 us at 1.755 GHz, whatever D up to 32 x 132 is). Two warpgroups take the
// parts of a row by turns; then s = inverse * (f + ...) in float32. One block runs on a multiprocessor, so
// nothing hides its waits: all that a part reads beside weights is fetched a part ahead or at its start.
// Grid: parts of 32 columns x blocks.
//
// Within a diagonal part rows see the states before they are rounded, else as the cache holds them. Method:
// blocked forward substitution with inverted diagonal blocks (as in solve_tril of flash-linear-attention), by
// columns.
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/triangle.cuh"

namespace sessa::cuda {
namespace {

__device__ __forceinline__ float* TermsOf(const PanelSolve& solve, int64_t panel_row) {
  return solve.scratch.terms + panel_row * kPanelTerms;
}
__device__ __forceinline__ float2 OwnStats(const PanelSolve& solve, const PanelBlock& block, int tile,
                                           int row) {
  return reinterpret_cast<const float2*>(solve.scratch.own_stats +
                                         block.stats)[tile * PaddedQueries(block) + row];
}

struct JoinShared {
  alignas(16) TriangleMatrix inverse, matrix;
  MergeScratch scratch;
  float max[kSolveRows], share[kSolveRows];
  float chains[kChains][kSolveRows];  // the weight of a chain, times the share
};

// Of the part's row `thread`.
__device__ __forceinline__ void JoinRow(const PanelSolve& solve, const PanelBlock& block, int first_row,
                                        JoinShared& shared) {
  const int thread = threadIdx.x, row = first_row + thread;
  float max = -INFINITY, share = 0, weights[kChains] = {};
  if (row < block.num_rows) {
    const int num_tiles = row / kPanelKeys + 1;  // the last has nothing to see for a row that begins it
    const auto chain_at = [&](int c) {
      return static_cast<int64_t>(c) * solve.partial_rows + block.wave_row + row;
    };
    float chain_max[kChains];
#pragma unroll
    for (int c = 0; c < kChains; ++c) max = fmaxf(max, chain_max[c] = solve.max[chain_at(c)]);
    for (int t = 0; t < num_tiles; ++t) max = fmaxf(max, OwnStats(solve, block, t, row).x);
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kChains; ++c) {
      weights[c] = Shrink(chain_max[c], max);
      if (weights[c] > 0) sum = fmaf(weights[c], solve.sum[chain_at(c)], sum);
    }
    float* terms = TermsOf(solve, block.panel_row + row);
    for (int t = 0; t < num_tiles; ++t) {
      const float2 tile = OwnStats(solve, block, t, row);
      const float power = Shrink(tile.x, max);
      sum = fmaf(tile.y, power, sum);
      if (blockIdx.y == 0) terms[kPanelPowers + t] = power;
    }
    share = sum > 0 ? solve.gamma[block.first_row + row] / sum : 0.0f;
    if (blockIdx.y == 0) terms[kPanelShare] = share;
  }
  shared.max[thread] = max;
  shared.share[thread] = share;
#pragma unroll
  for (int c = 0; c < kChains; ++c) shared.chains[c][thread] = share * weights[c];
}

constexpr int kBaseColumns = 128;  // of a thread block
constexpr int kBaseRows = 4;       // of a thread at once: what it adds to one row, it has loaded for all

__global__ void __launch_bounds__(kThreads, 2) JoinKernel(const PanelSolve solve) {
  BeginKernel();
  auto& shared = *static_cast<JoinShared*>(DynamicShared());
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSolveRows;
  const PanelBlock block =
      solve.blocks[PanelBlockOf(solve.blocks, solve.num_blocks, &PanelBlock::panel_row, first)];
  const int thread = threadIdx.x, first_row = static_cast<int>(first - block.panel_row);
  if (first_row >= block.num_rows) return;
  if (thread < kSolveRows) JoinRow(solve, block, first_row, shared);
  __syncthreads();
  if (blockIdx.y > 0) {
    const int column =
        solve.begin + (static_cast<int>(blockIdx.y) - 1) * kBaseColumns + thread % kBaseColumns;
    if (column >= solve.end) return;
    const int rows = min(kSolveRows, block.num_rows - first_row);
    constexpr int kRowStep = kThreads / kBaseColumns;
#pragma unroll 1
    for (int r0 = thread / kBaseColumns; r0 < rows; r0 += kBaseRows * kRowStep) {
      float x[kBaseRows] = {}, weights[kBaseRows][kChains] = {}, past[kBaseRows][kChains] = {};
#pragma unroll
      for (int n = 0; n < kBaseRows; ++n) {
        const int r = r0 + n * kRowStep, row = first_row + r;
        if (r >= rows) continue;
        x[n] = solve.f.row(block.first_row + row)[column];
#pragma unroll
        for (int c = 0; c < kChains; ++c) {
          weights[n][c] = shared.chains[c][r];
          if (weights[n][c] == 0) continue;  // then nothing was written
          past[n][c] =
              solve.acc[(static_cast<int64_t>(c) * solve.partial_rows + block.wave_row + row) * solve.width +
                        column];
        }
      }
#pragma unroll
      for (int n = 0; n < kBaseRows; ++n) {
        const int r = r0 + n * kRowStep;
        if (r >= rows) continue;
#pragma unroll
        for (int c = 0; c < kChains; ++c) x[n] = fmaf(weights[n][c], past[n][c], x[n]);
        solve.s.row(block.first_row + first_row + r)[column] = x[n];
      }
    }
    return;
  }
  for (int i = thread; i < kSolveRows * kSolveRows; i += kThreads) {
    const int r = i / kSolveRows, j = i % kSolveRows, row = first_row + r;
    float b = 0;
    if (row < block.num_rows && j < r) {
      const float tile_max = OwnStats(solve, block, first_row / kPanelKeys, row).x;
      b = shared.share[r] *
          (Shrink(tile_max, shared.max[r]) * solve.scratch.diagonal[(first + r) * kSolveRows + j]);
    }
    shared.matrix[r][j] = b;
  }
  __syncthreads();
  InvertTriangle(shared.matrix, shared.inverse, shared.scratch);
  for (int i = thread; i < kSolveRows * kSolveRows; i += kThreads)
    solve.scratch.inverses[first * kSolveRows + i] = shared.inverse[i / kSolveRows][i % kSolveRows];
}

constexpr int kColumns = 32;  // of s, of a thread block
constexpr int kFragments = kColumns / 8;
constexpr int kBlockThreads = 2 * kWarpgroup;
constexpr int kStages = 4, kAhead = 3;
constexpr int kRowBytes = kColumns * sizeof(Bf16);
constexpr int kMaxTiles = kMaxPanelQueries / kPanelKeys;
static_assert(kBlockThreads == kThreads && kSolveRows == kPanelDepth && kSolveRows == kWarpgroupRows &&
              kTriangleRows == kSolveRows);

struct TriangleShared {
  Bf16 weights[kStages][2][kSolveRows * kPanelDepth];  // of each warpgroup, operands of 128-byte rows
  alignas(16) TriangleMatrix inverse;
  alignas(16) float y[kSolveRows][kColumns + 4];
  unsigned powers[2][kMaxTiles][kSolveRows];  // of a row's weights in each key tile, by turns of the parts
  // Then the states of the rows before, operands of 64-byte rows.
};
constexpr int kStatesAt = RoundUp(sizeof(TriangleShared), kOperandAlign);

// A thread block's way through the triangle: part i of the rows reads the parts j < i, two a step.
struct Step {
  int part = 1, step = 0;
  __device__ void Next() {
    if (2 * ++step >= part) ++part, step = 0;
  }
};

__global__ void __launch_bounds__(kBlockThreads, 1) TriangleKernel(const PanelSolve solve) {
  BeginKernel();
  auto& shared = *static_cast<TriangleShared*>(DynamicShared());
  Bf16* states = reinterpret_cast<Bf16*>(reinterpret_cast<char*>(&shared) + kStatesAt);
  const PanelBlock block = solve.blocks[blockIdx.y];
  const int first_column = solve.begin + static_cast<int>(blockIdx.x) * kColumns;
  const int thread = threadIdx.x, warpgroup = thread / kWarpgroup;
  const int warp_row = thread / kWarpLanes % 4 * kWarpRows;
  const int num_parts = CeilDiv(block.num_rows, kSolveRows);
  const int row_size = block.num_tiles * kPanelKeys;
  // A thread copies the same 16 bytes of every 16th row of its warpgroup's part.
  const Bf16* weights = static_cast<const Bf16*>(solve.scratch.own_weights) + block.weights +
                        static_cast<int64_t>(thread % kWarpgroup / 8) * row_size + thread % 8 * kChunk;
  Step next;
  int num_loaded = 0;
  const auto load = [&] {
    if (next.part < num_parts) {
      const int j = 2 * next.step + warpgroup;
      if (j < next.part) {
        const Bf16* from =
            weights + static_cast<int64_t>(next.part) * kSolveRows * row_size + j * kPanelDepth;
        Bf16* to = shared.weights[num_loaded % kStages][warpgroup];
#pragma unroll
        for (int i = 0; i < kSolveRows / 16; ++i)
          CopyAsync(to + SwizzledOffset<128>(thread % kWarpgroup / 8 + i * 16, thread % 8 * kChunk),
                    from + i * 16 * row_size, true);
      }
      next.Next();
    }
    ++num_loaded;
    CommitCopies();
  };
  // Of part i: what the rows' weights in each key tile are multiplied by.
  const auto find_powers = [&](int i) {
    if (i >= num_parts) return;
    for (int n = thread; n < CeilDiv(i * kSolveRows, kPanelKeys) * kSolveRows; n += kBlockThreads) {
      const int tile = n / kSolveRows, row = i * kSolveRows + n % kSolveRows;
      shared.powers[i % 2][tile][n % kSolveRows] = BothHalves(
          row < block.num_rows ? TermsOf(solve, block.panel_row + row)[kPanelPowers + tile] : 0.0f);
    }
  };
  // f and the past, and the shares, of the first warpgroup's rows in part i.
  struct Base {
    float x[kFragments][4], share[2];
  };
  const auto find_base = [&](int i, Base& base) {
    if (warpgroup != 0) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = i * kSolveRows + warp_row + FragmentRow(2 * half);
      const bool exists = row < block.num_rows;
      base.share[half] = exists ? TermsOf(solve, block.panel_row + row)[kPanelShare] : 0.0f;
#pragma unroll
      for (int j = 0; j < kFragments; ++j) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const int column = first_column + FragmentColumn(j, e);
          base.x[j][e] = exists && column < solve.end ? solve.s.row(block.first_row + row)[column] : 0.0f;
        }
      }
    }
  };
  // A thread's 4 rows x 2 columns of s.
  const int row0 = thread / 16 * 4, column0 = thread % 16 * 2;
  // Of part i: the pages of these rows. Four neighbours lie in at most two, so one division tells.
  const auto find_pages = [&](int i, int(&pages)[4]) {
    if (solve.states.data == nullptr) return;
    const int first = block.start + i * kSolveRows + row0, page_size = solve.states.page_size;
    const int page = first / page_size, slot = first & (page_size - 1);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      if (i * kSolveRows + row0 + r < block.num_rows) pages[r] = block.pages[page + (slot + r >= page_size)];
    }
  };

  for (int i = 0; i < kAhead; ++i) load();
  Base base = {}, next_base = {};
  find_base(0, next_base);
  int next_pages[4] = {};
  find_pages(0, next_pages);
  int step = 0;  // over all parts
  for (int i = 0; i < num_parts; ++i) {
    base = next_base;
    find_base(i + 1, next_base);
    find_powers(i + 1);
    float4 inverse[kSolveRows * kSolveRows / 4 / kBlockThreads];
    const float4* inverse_from = reinterpret_cast<const float4*>(
        solve.scratch.inverses + (block.panel_row + i * kSolveRows) * kSolveRows);
#pragma unroll
    for (int n = 0; n < static_cast<int>(sizeof inverse / sizeof inverse[0]); ++n)
      inverse[n] = inverse_from[n * kBlockThreads + thread];
    float gates[4][2] = {};
    Bf16* pages[4] = {};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = i * kSolveRows + row0 + r;
      if (row >= block.num_rows) continue;
      if (solve.states.data != nullptr) {
        pages[r] =
            VectorInPage<Bf16>(solve.states, next_pages[r], 0, block.start + row) + first_column + column0;
      }
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int column = first_column + column0 + c;
        if (solve.gated.data != nullptr && column < solve.end)
          gates[r][c] = solve.g.row(block.first_row + row)[column];
      }
    }
    find_pages(i + 1, next_pages);

    float sums[kFragments][4] = {};
    for (int k = 0; 2 * k < i; ++k, ++step) {
      WaitForCopies<kAhead - 1>();
      FenceOperands();
      __syncthreads();  // the step's weights and the last part's states are there
      const int j = 2 * k + warpgroup;
      if (j < i) {
        unsigned a[kPanelDepth / 16][4], powers[2];
#pragma unroll
        for (int half = 0; half < 2; ++half)
          powers[half] = shared.powers[i % 2][j * kSolveRows / kPanelKeys][warp_row + FragmentRow(2 * half)];
        LoadWeights(a, shared.weights[step % kStages][warpgroup], warp_row, powers);
        BeginProducts(sums, a);
#pragma unroll
        for (int n = 0; n < kPanelDepth / 16; ++n) {
          Multiply<kColumns, true>(
              sums, a[n], DescribeMnMajor<kRowBytes>(states + (j * kSolveRows + n * 16) * kColumns, 0));
        }
        CommitProducts();
        WaitForProducts<0>(sums, a);
      }
      load();
    }

    // y = base + share * sums, the second warpgroup's through shared memory.
#pragma unroll
    for (int j = 0; warpgroup == 1 && j < kFragments; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) shared.y[warp_row + FragmentRow(e)][FragmentColumn(j, e)] = sums[j][e];
    }
#pragma unroll
    for (int n = 0; n < static_cast<int>(sizeof inverse / sizeof inverse[0]); ++n) {
      const int at = (n * kBlockThreads + thread) * 4;
      *reinterpret_cast<float4*>(&shared.inverse[at / kSolveRows][at % kSolveRows]) = inverse[n];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; warpgroup == 0 && j < kFragments; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& y = shared.y[warp_row + FragmentRow(e)][FragmentColumn(j, e)];
        y = fmaf(base.share[e / 2], sums[j][e] + y, base.x[j][e]);
      }
    }
    __syncthreads();
    // s = inverse * y
    float s[4][2] = {};
    for (int k = 0; k < row0 + 4; k += 4) {  // beyond is zero
      float2 y[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) y[n] = *reinterpret_cast<const float2*>(&shared.y[k + n][column0]);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float4 x = Load4(&shared.inverse[row0 + r][k]);
        s[r][0] = fmaf(x.w, y[3].x, fmaf(x.z, y[2].x, fmaf(x.y, y[1].x, fmaf(x.x, y[0].x, s[r][0]))));
        s[r][1] = fmaf(x.w, y[3].y, fmaf(x.z, y[2].y, fmaf(x.y, y[1].y, fmaf(x.x, y[0].y, s[r][1]))));
      }
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = i * kSolveRows + row0 + r;
      *reinterpret_cast<unsigned*>(states + SwizzledOffset<kRowBytes>(row, column0)) =
          PackBf16(s[r][0], s[r][1]);
      if (row >= block.num_rows) continue;
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int column = first_column + column0 + c, batch_row = block.first_row + row;
        if (column >= solve.end) continue;
        solve.s.row(batch_row)[column] = s[r][c];
        if (pages[r] != nullptr) pages[r][c] = RoundToBf16(s[r][c]);
        if (solve.gated.data != nullptr) solve.gated.row(batch_row)[column] = s[r][c] * gates[r][c];
      }
    }
  }
}

}  // namespace

void SolvePanels(cudaStream_t stream, const PanelSolve& solve) {
  if (solve.num_blocks == 0 || solve.end <= solve.begin) return;
  const dim3 parts(static_cast<unsigned>(solve.panel_rows / kSolveRows),
                   1 + CeilDiv(solve.end - solve.begin, kBaseColumns));
  Launch(stream, parts, kThreads, sizeof(JoinShared), JoinKernel, solve);
  const size_t states = static_cast<size_t>(RoundUp(solve.max_rows, kSolveRows)) * kRowBytes;
  Launch(stream, dim3(CeilDiv(solve.end - solve.begin, kColumns), solve.num_blocks), kBlockThreads,
         kStatesAt + states, TriangleKernel, solve);
}

}  // namespace sessa::cuda
