// Bytes of a fuzzer as choices. Past the end every choice is the lowest, so that each input means something.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sessa {

class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : data_(data), end_(data + size) {}
  bool empty() const { return data_ == end_; }
  uint8_t Byte() { return empty() ? 0 : *data_++; }
  // In [low, high]; takes one byte, two for ranges above 256.
  int Between(int low, int high) {
    const uint32_t range = static_cast<uint32_t>(high - low) + 1;
    const uint32_t value = range <= 256 ? Byte() : Byte() * 256u + Byte();
    return low + static_cast<int>(value % range);
  }
  bool Chance(int of_256) { return Byte() < of_256; }

 private:
  const uint8_t* data_;
  const uint8_t* const end_;
};

}  // namespace sessa
