#pragma once

#include <cstdint>

namespace sessa {

// Bytes that this process may still take: the machine's, and its container's (cgroup v2).
int64_t FreeMemory();

}  // namespace sessa
