#include "kernels/own_core.h"

#include <sched.h>

namespace sessa {

void AskForOwnCore(int i, int num_threads) {
  cpu_set_t allowed;
  // More cores than a cpu_set_t has: Linux chooses.
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || CPU_COUNT(&allowed) != num_threads) return;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || i-- > 0) continue;
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(core, &own);
    sched_setaffinity(0, sizeof(own), &own);
    return;
  }
}

}  // namespace sessa
