// Writes MessagePack (github.com/msgpack/msgpack, spec.md), as much of it as cache events need. Debian's
// packages of it want another Boost than this server.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"

namespace sessa {

class MessagePack {
 public:
  void Nil() { bytes_ += '\xc0'; }
  void Array(uint32_t num_items) { Head(num_items, 15, 0x90, 0xdc); }
  // Of so many keys, each followed by its value.
  void Map(uint32_t num_keys) { Head(num_keys, 15, 0x80, 0xde); }
  void String(absl::string_view text) {
    text.size() <= 31 ? Head(static_cast<uint32_t>(text.size()), 31, 0xa0, 0xda)
                      : Head(static_cast<uint32_t>(text.size()), -1, 0, 0xda);
    bytes_.append(text.data(), text.size());
  }
  void Integer(uint64_t value) {
    if (value <= 0x7f) return Byte(value);
    Byte(0xcf);
    BigEndian(value, 8);
  }
  void Double(double value) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    Byte(0xcb);
    BigEndian(bits, 8);
  }
  // As it is: what was written before.
  void Append(absl::string_view bytes) { bytes_.append(bytes.data(), bytes.size()); }

  const std::string& bytes() const { return bytes_; }

 private:
  void Byte(uint64_t value) { bytes_ += static_cast<char>(value); }
  void BigEndian(uint64_t value, int num_bytes) {
    for (int shift = 8 * (num_bytes - 1); shift >= 0; shift -= 8) Byte(value >> shift);
  }
  // Up to `most` in one byte with `small`; else `large` and two bytes, or the next format and four.
  void Head(uint32_t size, int64_t most, int small, int large) {
    if (size <= most) return Byte(small | size);
    const bool fits = size <= 0xffff;
    Byte(fits ? large : large + 1);
    BigEndian(size, fits ? 2 : 4);
  }

  std::string bytes_;
};

}  // namespace sessa
