// The vector loops of Mamba-2's mixer; see kernels/scan.h. Vectors run along channels and along the
// dimensions of a head, so that each sum over taps or over the state is one chain in its own order, whatever
// the number of rows.
#pragma once

#include <cstdint>

namespace sessa::cpu {

// y = silu(sum_i weight[i] taps[i] + bias) over n channels, the taps in order; weight[i] at weight + i *
// channels. A null tap is zero; bias may be null.
void ConvRow(const float* const* taps, int num_taps, const float* weight, int64_t channels, const float* bias,
             int n, float* y);

// One head's part of rows t = 0 .. num_rows of one sequence, all P dimensions of it:
//   S = decay[t] S + x_t B_t^T (x scaled by dt[t]);  y_t = (S C_t + d x_t) * silu(z_t)
// Each of x, b, c, z, y has a row stride of its own; decay and dt are those of the head, `step` apart. state
// [N][P], in and out.
struct ScanRows {
  int num_rows, head_dim, state_size;
  const float *x, *b, *c, *z;
  int64_t x_stride, bc_stride, z_stride;
  const float *decay, *dt;
  int64_t step;
  float d;
  float* y;
  int64_t y_stride;
};
void Scan(const ScanRows& rows, float* state);

}  // namespace sessa::cpu
