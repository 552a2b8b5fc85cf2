#include "tests/bench/cuda/device.h"

#include <algorithm>
#include <cmath>

#include "kernels/convert.h"

namespace sessa {

std::vector<uint16_t> RandomBf16(size_t n, float scale) {
  std::vector<uint16_t> values(n);
  const float half_width = std::sqrt(3.0f) * scale;
  uint32_t state = 2463534242;  // xorshift
  for (uint16_t& v : values) {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    v = RoundToBf16(half_width * (static_cast<float>(state) * 0x1p-31f - 1));
  }
  return values;
}

void BenchDevice::FillRandom(void* device, size_t bytes, DType dtype, float scale) {
  // Of an odd number of values, so that no two rows of a matrix are the same.
  constexpr size_t kValues = (4 << 20) - 1;
  Buffer& pattern = patterns_[{dtype, scale}];
  if (pattern.size() == 0) {
    auto memory = backend()->Allocate(kValues * SizeOf(dtype));
    if (!memory.ok()) return;
    pattern = *std::move(memory);
    const std::vector<uint16_t> rounded = RandomBf16(kValues, scale);
    std::vector<float> full;
    std::vector<int8_t> narrow;
    if (dtype == DType::kF32) {
      for (uint16_t v : rounded) full.push_back(ToFloat(&v, 0, DType::kBF16));
    } else if (dtype == DType::kI8) {
      for (uint16_t v : rounded) narrow.push_back(static_cast<int8_t>(v % 8 - 8));
    }
    backend()->CopyIn(dtype == DType::kF32  ? static_cast<const void*>(full.data())
                      : dtype == DType::kI8 ? static_cast<const void*>(narrow.data())
                                            : rounded.data(),
                      pattern.size(), pattern.data());
    (void)backend()->Synchronize();  // the host's copy goes; an error stays with the backend
  }
  for (size_t done = 0; done < bytes;) {
    const size_t more = std::min(bytes - done, pattern.size());
    CopyOnDevice(pattern.data(), more, static_cast<char*>(device) + done);
    done += more;
  }
}

absl::StatusOr<Buffer> BenchDevice::Random(size_t values, DType dtype, float scale) {
  auto memory = backend()->Allocate(values * SizeOf(dtype));
  if (memory.ok()) FillRandom(memory->data(), memory->size(), dtype, scale);
  return memory;
}

}  // namespace sessa
