// A thread that leaves the cores to others who want them. Called by threads whose work may wait a little:
// that on texts, and that on memory which comes ahead of its use.
#pragma once

#include <sys/resource.h>

namespace sessa {

// The calling thread alone (so it is on Linux) is nicer by so much than it was. Where a sandbox forbids even
// this nothing changes.
inline void BeNicer(int by) { setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + by); }

}  // namespace sessa
