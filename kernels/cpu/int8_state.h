// Cached state in 8 bits: what a token keeps in a head is cut into groups of kStateGroup columns, each with a
// scale of its own, which never depends on another token (an open page must be rewindable, and independent of
// how a prompt is cut).
//
// A value is q * 2^e: q from -127 to 127, rounded to nearest, of equals to the even one; e the smallest
// exponent, from -126 on, that lets the group's largest magnitude fit. Scales are powers of two, as in the
// OCP Microscaling formats (MXINT8), because every such value is a bf16 and a float32 as it is: reads of int8
// state are those of a bf16 state that holds these values, to the bit, on every unit and for every number of
// rows. (The closest scale would err by two thirds of that, but would have to be rounded again, or be applied
// to each group's sums.) No value is denormal. A group in which something is not finite is NaN in all
// columns: its exponent is kNotFinite, which makes the scale an infinity, and its q are 0.
//
// In memory, of a head: panels of 16 tokens, blocks of up to kStateGroup columns one after the other; a block
// has 16 bytes for each column, of keys [column][16], of values [16][column], and the 16 tokens' exponents.
// The dimension is rounded up to 16, with zeros.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/cpu/simd.h"
#include "kernels/state.h"

namespace sessa::cpu {

inline constexpr int kNotFinite = -128;

constexpr int Int8Width(int dim) { return RoundUp(dim, kPanel); }
constexpr int Int8Groups(int dim) { return CeilDiv(dim, kStateGroup); }
constexpr int64_t kInt8BlockBytes = kPanel * (kStateGroup + 1);  // of a whole block; only the last is shorter
constexpr int64_t Int8PanelBytes(int dim) {
  return static_cast<int64_t>(kPanel) * (Int8Width(dim) + Int8Groups(dim));
}
// Columns of block `group`.
constexpr int Int8Columns(int dim, int group) {
  return std::min(kStateGroup, Int8Width(dim) - group * kStateGroup);
}

constexpr float ScaleOf(int exponent) {
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

// One token of a panel, in and out.
void StoreInt8(const float* x, int dim, PagedShape::Use use, int8_t* panel, int token);
void LoadInt8(const int8_t* panel, int dim, PagedShape::Use use, int token, float* x);

}  // namespace sessa::cpu
