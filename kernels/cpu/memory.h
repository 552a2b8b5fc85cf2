#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sessa {

// Zeroed pages, huge ones where the system has them. RESOURCE_EXHAUSTED, with the number of bytes.
absl::StatusOr<Buffer> AllocateMemory(size_t bytes);

// Bytes that this process may still take: the machine's, and its container's (kernels/container.h).
int64_t FreeMemory();

// A scratch buffer of at least `size`.
template <class T>
T* Grown(std::vector<T>* buffer, int64_t size) {
  if (std::ssize(*buffer) < size) buffer->resize(size);
  return buffer->data();
}

// The same from the beginning of a cache line on, for what is read line by line.
template <class T>
T* GrownLines(std::vector<T>* buffer, int64_t size) {
  constexpr uintptr_t kLine = 64;
  const uintptr_t data = reinterpret_cast<uintptr_t>(Grown(buffer, size + kLine / sizeof(T)));
  return reinterpret_cast<T*>((data + kLine - 1) / kLine * kLine);
}

}  // namespace sessa
