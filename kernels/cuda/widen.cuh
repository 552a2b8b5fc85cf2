// Int8 state on its way to operands of the tensor cores, which are bf16. A thread copies 16 columns of a few
// tokens to a place of its own (NarrowCopies) and, once it has waited for them, widens them to where the
// operand is: no barrier stands between, and the widening runs beside the products of the stage before.
#pragma once

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/state.cuh"

namespace sessa::cuda {

inline constexpr int kNarrowChunk = 16;  // columns of a copy

// [copy][thread]: neighbours in different banks.
template <int kCopies, int kBlockThreads>
using NarrowCopies = uint4[kCopies][kBlockThreads];

// low: of the first 8 columns.
__device__ __forceinline__ void Widen(const uint4& narrow, int exponent, Bf16* low, Bf16* high) {
  float4 x[4];
  Load16(reinterpret_cast<const Int8*>(&narrow), x);
  const float scale = ScaleOf(exponent);
  unsigned words[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 y = Times(x[i], scale);
    words[2 * i] = PackBf16(y.x, y.y), words[2 * i + 1] = PackBf16(y.z, y.w);
  }
  *reinterpret_cast<uint4*>(low) = {words[0], words[1], words[2], words[3]};
  *reinterpret_cast<uint4*>(high) = {words[4], words[5], words[6], words[7]};
}

}  // namespace sessa::cuda
