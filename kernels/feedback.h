// What Sessa's recurrent feedback path needs of a device beside Backend: each row's state is s = f + gamma r,
// r being the causal attention of q_b over the keys k_b and the states s of all earlier rows
// (docs/architecture.md, "The model"). In order with the backend's operations.
#pragma once

#include "kernels/attention.h"
#include "kernels/state.h"
#include "kernels/tensor.h"

namespace sessa {

// Independent softmax chains of the feedback read: tile i extends chain i % kFeedbackChains. A multiple of
// every rank count, so that the sum's order, hence every bit of the result, is the same for 1, 2, 4 and 8
// ranks.
inline constexpr int kFeedbackChains = 8;

// What the feedback read of a wave leaves behind, exchanged between ranks. For the wave's rows r:
//   max, sum [kFeedbackChains][rows], acc [kFeedbackChains][rows][width], p [rows][kTileTokens]
// p: of blocks within one tile, the unnormalised probabilities of the columns inside it, from the rank of
// that tile. Backends with longer blocks keep what they need of a block's own columns from Read to Solve.
struct FeedbackPartials {
  float *max, *sum, *acc, *p;
  int rows, width;
};

// gamma[r] = gamma_max tanh(gamma_bias[0] + gamma_ctx . u_r), and k_b into the pages that are here.
struct FeedbackRows {
  Matrix k_b, u;                         // [rows, D]
  const Buffer *gamma_ctx, *gamma_bias;  // [D], [1]
  float gamma_max;
  float* gamma;  // [rows], filled in
  PagedTensor* keys;
};

// The chains c with c % num_ranks == rank, over all tokens whose state is cached, of one wave's rows.
struct FeedbackReadCall {
  Matrix q_b, k_b;  // k_b: the step's own keys, which the pages hold too
  int wave, rank, num_ranks;
  FeedbackPartials partials;
  const PagedTensor *keys, *states;
};

// s = f + gamma r for the columns [begin, end) of the wave's rows, and gated = s g there (null: not wanted).
// append: s goes to its pages too; requires all columns, and every page to be here. The partials are those
// of all ranks: p is [num_ranks][rows][kTileTokens].
struct FeedbackSolveCall {
  int wave, num_ranks;
  FeedbackPartials partials;
  Matrix f;
  const float* gamma;  // [rows]
  int begin, end;
  Matrix s, g, gated;
  bool append;
  PagedTensor* states;
};

class FeedbackOps {
 public:
  virtual ~FeedbackOps() = default;

  // Rows of the longest blocks that Read and Solve are made for: what CutIntoWaves is to be told.
  virtual int MaxBlockRows(DType state_dtype) const = 0;
  // Both, neither of which needs the other.
  virtual void Append(const AppendCall& forward, const FeedbackRows& rows) = 0;
  // States of one wave's rows. Rows whose page is not here are skipped.
  virtual void AppendStates(Matrix s, int wave, PagedTensor* states) = 0;
  virtual void Read(const FeedbackReadCall& call) = 0;
  // Both, neither of which needs the other.
  virtual void AttendAndRead(const AttendCall& attend, const FeedbackReadCall& read) = 0;
  virtual void Solve(const FeedbackSolveCall& call) = 0;
};

}  // namespace sessa
