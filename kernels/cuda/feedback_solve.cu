// The unit lower triangle of a block of rows, by forward substitution in float32: with the joined softmax of
// all chains,
//   s_t = f_t + gamma_t / l_t (base_t + w_t (acc_t + sum_{j < t in the block} p_tj s_j)),
// where w, acc and p are those of the block's own chain and base joins the others. Columns of s never mix, so
// a thread owns one: at most 64 * 63 / 2 multiply-adds for each. Grid: blocks of rows x columns in parts
// of 64. Decode is a block of one row.
#include "kernels/cuda/device.cuh"

namespace sessa::cuda {
namespace {

constexpr int kColumns = 64, kChains = 8;

__global__ void __launch_bounds__(kColumns)
    SolveKernel(const FeedbackSolveArgs args, const ReadBlock* blocks) {
  __shared__ float s[kTile][kColumns];             // as the cache will hold it
  __shared__ float weights[kChains][kMaxQueries];  // of the chains in the joined softmax
  const ReadBlock block = blocks[blockIdx.x];
  const int thread = threadIdx.x, column = args.begin + static_cast<int>(blockIdx.y) * kColumns + thread;
  const int own = block.start / kTile % kChains, first_column = block.start % kTile;
  const int partial_rows = LiveRows(args.live, args.partial_rows);
  const auto row_of = [&](int chain, int r) {
    return static_cast<int64_t>(chain) * partial_rows + block.wave_row + r;
  };
  float share = 0;  // of row `thread`: gamma over the denominator
  if (thread < block.num_rows) {
    float top = -INFINITY, denominator = 0;
    for (int c = 0; c < kChains; ++c) top = fmaxf(top, args.max[row_of(c, thread)]);
    for (int i = 1; i <= kChains; ++i) {  // the own chain comes last
      const int c = (own + i) % kChains;
      const float max = args.max[row_of(c, thread)];
      const float w = max == -INFINITY ? 0.0f : expf(max - top);
      weights[c][thread] = w;
      if (w > 0) denominator = fmaf(w, args.sum[row_of(c, thread)], denominator);
    }
    share = denominator > 0 ? args.gamma[block.first_row + thread] / denominator : 0.0f;
  }
  __shared__ float shares[kMaxQueries];
  shares[thread] = share;
  __syncthreads();
  if (column >= args.end) return;
  for (int r = 0; r < block.num_rows; ++r) {
    float base = 0, x = 0;
    for (int i = 1; i < kChains; ++i) {
      const int c = (own + i) % kChains;
      if (weights[c][r] > 0) base = fmaf(weights[c][r], args.acc[row_of(c, r) * args.width + column], base);
    }
    if (weights[own][r] > 0) x = args.acc[row_of(own, r) * args.width + column];
    const float* p = args.p + static_cast<int64_t>(block.wave_row + r) * kTile + first_column;
#pragma unroll 4
    for (int j = 0; j < r; ++j) x = fmaf(p[j], s[j][thread], x);
    const float y = fmaf(shares[r], fmaf(weights[own][r], x, base), args.f.row(block.first_row + r)[column]);
    args.s.row(block.first_row + r)[column] = y;
    s[r][thread] = args.round_to_bf16 ? ToFloat(RoundToBf16(y)) : y;
  }
}

}  // namespace

void FeedbackSolve(cudaStream_t stream, const FeedbackSolveArgs& args, const ReadBlock* blocks,
                   int num_blocks) {
  if (num_blocks == 0 || args.end <= args.begin) return;
  Launch(stream, dim3(num_blocks, (args.end - args.begin + kColumns - 1) / kColumns), kColumns, 0,
         SolveKernel, args, blocks);
}

}  // namespace sessa::cuda
