// The emulator's tensor cores: kernels/cuda/mma.h by plain loops over what the lanes of a warp hand in.
// Included by emulator.h. Sums run in the order of k with a rounding to float32 after each product; the
// hardware rounds less often and in its own way.
#pragma once

#include <cstdint>
#include <cstring>

namespace sessa::cuda {

inline void LoadMatrices(unsigned (&r)[4], const void* row, bool transposed = false) {
  uint32_t address[2];
  static_assert(sizeof row == sizeof address);
  std::memcpy(address, &row, sizeof row);
  const emulator::WarpWords& lanes = emulator::Exchange(address, 2);
  const int g = emulator::current->lane / 4, t = emulator::current->lane % 4;
  const auto value = [&](int matrix, int i, int j) {
    const uint16_t* values;
    std::memcpy(&values, lanes.words[matrix * 8 + i], sizeof values);
    return uint32_t{values[j]};
  };
  for (int m = 0; m < 4; ++m) {
    r[m] = transposed ? value(m, 2 * t, g) | value(m, 2 * t + 1, g) << 16
                      : value(m, g, 2 * t) | value(m, g, 2 * t + 1) << 16;
  }
  emulator::WarpBarrier();  // the hardware is done with shared memory when it returns
}
inline void LoadMatricesTransposed(unsigned (&r)[4], const void* row) { LoadMatrices(r, row, true); }

inline void MultiplyBf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const uint32_t operands[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const emulator::WarpWords& lanes = emulator::Exchange(operands, 6);
  const int g = emulator::current->lane / 4, t = emulator::current->lane % 4;
  const auto half = [](uint32_t word, int k) {
    return __uint_as_float(k % 2 == 0 ? word << 16 : word & 0xffff0000u);
  };
  const auto a_at = [&](int row, int k) {
    return half(lanes.words[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k);
  };
  const auto b_at = [&](int k, int column) {
    return half(lanes.words[column * 4 + k % 8 / 2][4 + k / 8], k);
  };
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 16; ++k) d[i] += a_at(g + i / 2 * 8, k) * b_at(k, 2 * t + i % 2);
  }
}

inline unsigned PackBf16(float low, float high) {
  const auto round = [](float x) -> unsigned {
    const unsigned bits = __float_as_uint(x);
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  };
  return round(low) | round(high) << 16;
}

inline unsigned MultiplyPairs(unsigned a, unsigned b) {
  return PackBf16(__uint_as_float(a << 16) * __uint_as_float(b << 16),
                  __uint_as_float(a & 0xffff0000u) * __uint_as_float(b & 0xffff0000u));
}

}  // namespace sessa::cuda
