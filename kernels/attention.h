// The calls of causal attention over paged keys and values (Backend::Append, Attend).
#pragma once

#include "absl/types/span.h"
#include "kernels/state.h"
#include "kernels/tensor.h"

namespace sessa {

// What the step's rows add to a layer: q [rows, heads * head_dim], k and v [rows, KV heads * head_dim], of
// this rank's heads. First, where there are norms, each head of q and k becomes its rms norm, times the
// weight [head_dim]; then, where the step has a rope, the even/odd pairs of every head of q and k are rotated
// in place by their positions' angles, taken in float32 as the published layers do; then k and v are stored
// in the step's pages.
struct AppendCall {
  Matrix q, k, v;
  PagedTensor *keys, *values;
  const Buffer *q_norm = nullptr, *k_norm = nullptr;  // both or none
  float norm_eps = 0;
};

// Causal grouped-query attention of this rank's heads, of all rows: softmax of q k^T / sqrt(head_dim) over
// the positions up to the row's own. q_to_kv[h] names the rank's own KV head of query head h; the query heads
// of one KV head are neighbours.
struct AttendCall {
  Matrix q;
  absl::Span<const int> q_to_kv;
  Matrix out;
  const PagedTensor *keys, *values;
  int window = 0;  // a row at position t sees t - window < j <= t; 0: all j <= t
};

}  // namespace sessa
