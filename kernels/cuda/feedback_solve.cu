// The unit lower triangle of a block of rows: with the joined softmax of all chains,
//   s_t = f_t + gamma_t / l_t (base_t + w_t (acc_t + sum_{j < t in the block} p_tj s_j)),
// where w, acc and p are those of the block's own chain and base joins the others. Columns of s never mix.
//
// SolveKernel: forward substitution in float32, a thread a column, at most 64 * 63 / 2 multiply-adds one
// after another; a row's bits do not depend on where its block begins. Decode is a block of one row.
// InverseSolveKernel: s = (I - B)^-1 (f + ...) as a product of 64 x 64 with 64 x 64 columns, the inverse by
// triangle.cuh. Each thread block inverts anew: that costs less than a launch. Within the block later rows
// then see the states as they are, not as the cache will round them. Grid of both: blocks of rows x columns
// in parts of 64.
#include "kernels/cuda/paged_read.cuh"
#include "kernels/cuda/triangle.cuh"

namespace sessa::cuda {
namespace {

constexpr int kColumns = 64;

// A block's part in the joined softmax.
struct Joined {
  float weights[kChains][kMaxQueries];  // of the chains
  float shares[kMaxQueries];            // gamma over the denominator
};

__device__ __forceinline__ int64_t PartialAt(const FeedbackSolveArgs& args, const ReadBlock& block, int chain,
                                             int r) {
  return static_cast<int64_t>(chain) * LiveRows(args.live, args.partial_rows) + block.wave_row + r;
}
__device__ __forceinline__ int OwnChain(const ReadBlock& block) { return block.start / kTile % kChains; }
// Of row r, the weights of the block's columns.
__device__ __forceinline__ const float* OwnWeights(const FeedbackSolveArgs& args, const ReadBlock& block,
                                                   int r) {
  return args.p + PartialAt(args, block, block.start / kTile % args.num_ranks, r) * kTile +
         block.start % kTile;
}

// Of row r; one thread of kMaxQueries for each calls it.
__device__ __forceinline__ void JoinChains(const FeedbackSolveArgs& args, const ReadBlock& block, int r,
                                           Joined& joined) {
  float share = 0;
  if (r < block.num_rows) {
    float top = -INFINITY, denominator = 0;
    for (int c = 0; c < kChains; ++c) top = fmaxf(top, args.max[PartialAt(args, block, c, r)]);
    for (int i = 1; i <= kChains; ++i) {  // the own chain comes last
      const int c = (OwnChain(block) + i) % kChains;
      const float max = args.max[PartialAt(args, block, c, r)];
      const float w = max == -INFINITY ? 0.0f : expf(max - top);
      joined.weights[c][r] = w;
      if (w > 0) denominator = fmaf(w, args.sum[PartialAt(args, block, c, r)], denominator);
    }
    share = denominator > 0 ? args.gamma[block.first_row + r] / denominator : 0.0f;
  }
  joined.shares[r] = share;
}

// w_t acc_t of the own chain is left to the caller, who may have more to add to acc_t: returns base_t, and
// acc_t or 0.
struct Past {
  float base, own;
};
__device__ __forceinline__ Past ReadPast(const FeedbackSolveArgs& args, const ReadBlock& block,
                                         const Joined& joined, int r, int column) {
  const int own = OwnChain(block);
  Past past = {0, 0};
  for (int i = 1; i < kChains; ++i) {
    const int c = (own + i) % kChains;
    if (joined.weights[c][r] > 0) {
      past.base =
          fmaf(joined.weights[c][r], args.acc[PartialAt(args, block, c, r) * args.width + column], past.base);
    }
  }
  if (joined.weights[own][r] > 0) past.own = args.acc[PartialAt(args, block, own, r) * args.width + column];
  return past;
}

// Row r of the block. exponent: of the column's group, where states are int8.
__device__ __forceinline__ void StoreState(const FeedbackSolveArgs& args, const ReadBlock& block, int r,
                                           int column, float s, int exponent = 0) {
  const int row = block.first_row + r, position = block.start + r;
  args.s.row(row)[column] = s;
  if (args.g.data != nullptr) args.gated.row(row)[column] = s * args.g.row(row)[column];
  const PagedVectors& states = args.states;
  if (states.data == nullptr) return;
  if (states.dtype == DType::kI8) {
    Int8* vector = VectorAt<Int8>(states, block.pages, 0, position);
    vector[column] = Quantize(s, exponent);
    if (column % kStateGroup == 0) vector[ToExponent(states, position, column)] = static_cast<Int8>(exponent);
  } else if (states.dtype == DType::kBF16) {
    Store(s, VectorAt<Bf16>(states, block.pages, 0, position) + column);
  } else {
    Store(s, VectorAt<float>(states, block.pages, 0, position) + column);
  }
}

// The exponent of the thread block's columns of a row, of which each thread has one: a barrier a row, as the
// rows take turns at two places.
static_assert(kColumns == kStateGroup);
struct GroupExponent {
  unsigned largest[2][kColumns / kWarpLanes];
  __device__ int Find(int row, float s) {
    unsigned(&of_row)[kColumns / kWarpLanes] = largest[row % 2];
    const unsigned of_warp = WarpLargest(MagnitudeBits(s));
    if (threadIdx.x % kWarpLanes == 0) of_row[threadIdx.x / kWarpLanes] = of_warp;
    __syncthreads();
    return ExponentOf(max(of_row[0], of_row[1]));
  }
};

__global__ void __launch_bounds__(kColumns)
    SolveKernel(const FeedbackSolveArgs args, const ReadBlock* blocks) {
  BeginKernel();
  __shared__ float s[kTile][kColumns];  // as the cache will hold it
  __shared__ Joined joined;
  __shared__ GroupExponent group;
  const ReadBlock block = blocks[blockIdx.x];
  const int thread = threadIdx.x, column = args.begin + static_cast<int>(blockIdx.y) * kColumns + thread;
  const int own = OwnChain(block);
  JoinChains(args, block, thread, joined);
  __syncthreads();
  const bool exists = column < args.end, is_int8 = args.state_dtype == DType::kI8;
  for (int r = 0; r < block.num_rows; ++r) {
    float y = 0;
    if (exists) {
      const Past past = ReadPast(args, block, joined, r, column);
      float x = past.own;
      const float* p = OwnWeights(args, block, r);
#pragma unroll 4
      for (int j = 0; j < r; ++j) x = fmaf(p[j], s[j][thread], x);
      y = fmaf(joined.shares[r], fmaf(joined.weights[own][r], x, past.base),
               args.f.row(block.first_row + r)[column]);
    }
    const int exponent = is_int8 ? group.Find(r, y) : 0;
    if (exists) StoreState(args, block, r, column, y, exponent);
    s[r][thread] = is_int8                            ? Dequantize(Quantize(y, exponent), exponent)
                   : args.state_dtype == DType::kBF16 ? ToFloat(RoundToBf16(y))
                                                      : y;
  }
}

struct InverseShared {
  alignas(16) TriangleMatrix inverse;
  alignas(16) TriangleMatrix matrix;  // B, then the right-hand sides
  MergeScratch scratch;
  Joined joined;
};

// A thread owns 4 x 4 results.
__global__ void __launch_bounds__(kThreads, 2)
    InverseSolveKernel(const FeedbackSolveArgs args, const ReadBlock* blocks) {
  BeginKernel();
  auto& shared = *static_cast<InverseShared*>(DynamicShared());
  const ReadBlock block = blocks[blockIdx.x];
  const int thread = threadIdx.x, first_column = args.begin + static_cast<int>(blockIdx.y) * kColumns;
  const int own = OwnChain(block);
  if (thread < kMaxQueries) JoinChains(args, block, thread, shared.joined);
  __syncthreads();
  for (int i = thread; i < kTriangleRows * kTriangleRows; i += kThreads) {
    const int r = i / kTriangleRows, j = i % kTriangleRows;
    float b = 0;
    if (r < block.num_rows && j < r) {
      b = shared.joined.shares[r] * (shared.joined.weights[own][r] * OwnWeights(args, block, r)[j]);
    }
    shared.matrix[r][j] = b;
  }
  __syncthreads();
  InvertTriangle(shared.matrix, shared.inverse, shared.scratch);
  for (int i = thread; i < kTriangleRows * kColumns; i += kThreads) {
    const int r = i / kColumns, c = i % kColumns;
    float y = 0;
    if (r < block.num_rows && first_column + c < args.end) {
      const Past past = ReadPast(args, block, shared.joined, r, first_column + c);
      y = fmaf(shared.joined.shares[r], fmaf(shared.joined.weights[own][r], past.own, past.base),
               args.f.row(block.first_row + r)[first_column + c]);
    }
    shared.matrix[r][c] = y;
  }
  __syncthreads();
  const int row0 = thread / 16 * 4, column0 = thread % 16 * 4;
  float s[4][4] = {};
  for (int j = 0; j < row0 + 4; j += 4) {  // beyond is zero
    float4 y[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) y[k] = Load4(&shared.matrix[j + k][column0]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 x = Load4(&shared.inverse[row0 + i][j]);
      s[i][0] = fmaf(x.w, y[3].x, fmaf(x.z, y[2].x, fmaf(x.y, y[1].x, fmaf(x.x, y[0].x, s[i][0]))));
      s[i][1] = fmaf(x.w, y[3].y, fmaf(x.z, y[2].y, fmaf(x.y, y[1].y, fmaf(x.x, y[0].y, s[i][1]))));
      s[i][2] = fmaf(x.w, y[3].z, fmaf(x.z, y[2].z, fmaf(x.y, y[1].z, fmaf(x.x, y[0].z, s[i][2]))));
      s[i][3] = fmaf(x.w, y[3].w, fmaf(x.z, y[2].w, fmaf(x.y, y[1].w, fmaf(x.x, y[0].w, s[i][3]))));
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int column = first_column + column0 + c;
      if (row0 + i < block.num_rows && column < args.end) StoreState(args, block, row0 + i, column, s[i][c]);
    }
  }
}

}  // namespace

void FeedbackSolve(cudaStream_t stream, const FeedbackSolveArgs& args, const ReadBlock* blocks,
                   int num_blocks, bool by_inverse) {
  if (num_blocks == 0 || args.end <= args.begin) return;
  const dim3 grid(num_blocks, CeilDiv(args.end - args.begin, kColumns));
  if (by_inverse) {
    Launch(stream, grid, kThreads, sizeof(InverseShared), InverseSolveKernel, args, blocks);
  } else {
    Launch(stream, grid, kColumns, 0, SolveKernel, args, blocks);
  }
}

}  // namespace sessa::cuda
