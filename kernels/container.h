// What this process may take of the machine by its cgroups (version 2): a container's limits, those of a
// systemd service, and of all that these are in. Sizes that nobody named follow from it: threads
// (engine/engine_options), state (engine/worker). Files that are not there or not understood set no limit.
// Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sessa {

// The folders of this process's cgroup and of those around it, innermost first, `root` last. `self` has the
// line "0::/PATH" (man 7 cgroups); in a container PATH may be seen from outside, and only `root` is there.
std::vector<std::string> CgroupFolders(const std::string& root = "/sys/fs/cgroup",
                                       const std::string& self = "/proc/self/cgroup");

// Bytes that may still be taken under the tightest memory.max; none: no limit. Pages of files (weights that
// were read) count as free, as the kernel takes them back before it ends anybody.
std::optional<int64_t> CgroupFreeMemory(const std::vector<std::string>& folders = CgroupFolders());

}  // namespace sessa
