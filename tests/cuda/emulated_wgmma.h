// The emulator's warpgroup products: kernels/cuda/wgmma.h by plain loops, from the PTX manual's tables of the
// descriptor's fields and of the canonical layouts. Included by emulator.h. Each lane reads its operands from
// shared memory, in every other block when the product is issued and else when it is waited for: a kernel
// must rely on neither. Sums run in the order of k, as in emulated_mma.h.
#pragma once

#include <array>
#include <cstdint>

namespace sessa::cuda {

using emulator::CommitProducts;
using emulator::FenceOperands;
using emulator::SharedAddress;

template <class... Registers>
void BeginProducts(Registers&...) {
  emulator::BeginProducts();
}
template <int kPending, class... Registers>
void WaitForProducts(Registers&...) {
  emulator::WaitForProducts(kPending);
}

namespace emulated {

// A descriptor's matrix, in chunks of 16 bytes.
struct Operand {
  explicit Operand(uint64_t descriptor)
      : start(Field(descriptor, 0)), leading(Field(descriptor, 16)), stride(Field(descriptor, 32)) {
    emulator::Require(descriptor >> 62 == 1 || descriptor >> 62 == 2, "a descriptor of no known swizzle");
    emulator::Require((descriptor >> 49 & 7) == 0, "a descriptor with a base offset");
    row_chunks = descriptor >> 62 == 1 ? 8 : 4;
  }
  static uint32_t Field(uint64_t descriptor, int bit) {
    return static_cast<uint32_t>(descriptor >> bit & 0x3fff) * 16;
  }
  const uint16_t* At(uint32_t offset) const {
    const uint32_t address = start + offset, pattern = address / 128 % row_chunks;
    return static_cast<const uint16_t*>(emulator::OperandChunk(address ^ pattern * 16));
  }
  // Row i, the 8 k from 8 c on.
  const uint16_t* KMajor(int i, int c) const { return At(i % 8 * row_chunks * 16 + i / 8 * stride + c * 16); }
  // The 8 columns from 8 c on, k.
  const uint16_t* MnMajor(int c, int k) const {
    return At(c % row_chunks * 16 + c / row_chunks * leading + k % 8 * row_chunks * 16 + k / 8 * stride);
  }
  uint32_t start, leading, stride, row_chunks;
};

inline float FromBf16(uint32_t bits) { return __uint_as_float(bits << 16); }

using Row = std::array<float, 16>;  // of A: all k

template <int kN, bool kMnMajorB, bool kAdds>
void AddRows(float (&d)[kN / 8][4], const Row (&a)[2], const Operand& b) {
  const int t = emulator::current->lane % 4;
  for (int j = 0; j < kN / 8; ++j) {
    Row columns[2];
    for (int k = 0; k < 16; k += kMnMajorB ? 1 : 8) {
      for (int c = 0; c < 2; ++c) {
        if (kMnMajorB) {
          columns[c][k] = FromBf16(b.MnMajor(j, k)[2 * t + c]);
        } else {
          const uint16_t* chunk = b.KMajor(8 * j + 2 * t + c, k / 8);
          for (int i = 0; i < 8; ++i) columns[c][k + i] = FromBf16(chunk[i]);
        }
      }
    }
    for (int e = 0; e < 4; ++e) {
      float sum = kAdds ? d[j][e] : 0.0f;
      for (int k = 0; k < 16; ++k) sum += a[e / 2][k] * columns[e % 2][k];
      d[j][e] = sum;
    }
  }
}

}  // namespace emulated

template <int kN, bool kMnMajorB, bool kAdds = true>
void Multiply(float (&d)[kN / 8][4], uint64_t a, uint64_t b) {
  emulator::AddProduct([&d, a, b] {
    const emulated::Operand operand(a);
    const int first = emulator::current->warp % 4 * 16 + emulator::current->lane / 4;
    emulated::Row rows[2];
    for (int half = 0; half < 2; ++half) {
      for (int k = 0; k < 16; ++k)
        rows[half][k] = emulated::FromBf16(operand.KMajor(first + 8 * half, k / 8)[k % 8]);
    }
    emulated::AddRows<kN, kMnMajorB, kAdds>(d, rows, emulated::Operand(b));
  });
}

template <int kN, bool kMnMajorB, bool kAdds = true>
void Multiply(float (&d)[kN / 8][4], const unsigned (&a)[4], uint64_t b) {
  const emulator::WarpWords& lanes = emulator::Exchange(a, 4);
  struct Rows {
    emulated::Row rows[2];
  } held;
  for (int half = 0; half < 2; ++half) {
    for (int k = 0; k < 16; ++k) {
      const uint32_t word = lanes.words[emulator::current->lane / 4 * 4 + k % 8 / 2][half + k / 8 * 2];
      held.rows[half][k] = emulated::FromBf16(k % 2 == 0 ? word & 0xffff : word >> 16);
    }
  }
  emulator::AddProduct(
      [&d, held, b] { emulated::AddRows<kN, kMnMajorB, kAdds>(d, held.rows, emulated::Operand(b)); });
}

}  // namespace sessa::cuda
