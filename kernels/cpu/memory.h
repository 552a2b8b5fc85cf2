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

}  // namespace sessa
