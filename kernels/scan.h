// What a Mamba-2 mixer needs of a device beside Backend (Dao and Gu, "Transformers are SSMs", 2024): the
// short convolution and the selective scan, whose state is one matrix for each head of a sequence.
#pragma once

#include "absl/types/span.h"
#include "kernels/buffer.h"
#include "kernels/state.h"
#include "kernels/tensor.h"

namespace sessa {

// The heads of one rank: H of P dimensions, and all G groups of N.
struct ScanShape {
  int num_heads, head_dim;           // H, P
  int num_groups, state_size;        // G, N
  int conv_kernel;                   // K
  absl::Span<const int> head_group;  // [H], the group of each head

  int inner() const { return num_heads * head_dim; }                      // of x, y and z
  int channels() const { return inner() + 2 * num_groups * state_size; }  // of x, B and C
};

// float32. conv_weight [K][channels], conv_bias [channels] or null; a_log, d, dt_bias [H].
struct ScanWeights {
  const Buffer *conv_weight, *conv_bias, *a_log, *d, *dt_bias;
};

// For each row t, in the order of its sequence:
//   [x | B | C] = silu(sum_i conv_weight[i] xbc_{t - K + 1 + i} + conv_bias), zeros before a sequence
//   dt = softplus(dt + dt_bias);  S_h = exp(-exp(a_log_h) dt_h) S_h + dt_h x_h B_g^T
//   out_h = (S_h C_g + d_h x_h) * silu(z_h)
// The state of a sequence: conv [K - 1][channels], the last rows of xbc, oldest first, and ssm [H][P][N];
// from and to the slots that the step's spans name. A sum over N or K has an order of its own, so that a row
// is the same bits in every chunk.
struct ScanCall {
  Matrix z, xbc, dt;  // [rows, inner], [rows, channels], [rows, H]
  Matrix out;         // [rows, inner]
  ScanShape shape;
  ScanWeights weights;
  SlotTensor *conv, *ssm;
};

class ScanOps {
 public:
  virtual ~ScanOps() = default;
  virtual void Scan(const ScanCall &call) = 0;
};

}  // namespace sessa
