#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sessa {

// Zeroed pages, huge ones where the system has them. RESOURCE_EXHAUSTED, with the number of bytes.
absl::StatusOr<Buffer> AllocatePages(size_t bytes);

// Bytes that this process may still take: the machine's, and its container's (cgroup v2).
int64_t FreeMemory();

}  // namespace sessa
