// See descriptors.h.
#include "server/net/descriptors.h"

#include <sys/resource.h>

#include <algorithm>

namespace sessa {

int64_t RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;  // POSIX says it cannot fail so; Linux's usual
  if (limit.rlim_cur < limit.rlim_max) {
    rlimit raised = limit;
    raised.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, INT32_MAX));
}

ConnectionCaps FitConnections(ConnectionCaps wanted, int64_t limit) {
  const int64_t reserve = std::min<int64_t>(256, limit / 4);
  const int64_t room = limit - reserve;
  const int64_t needed = int64_t{wanted.http} + int64_t{kDescriptorsOfGrpc} * wanted.grpc;
  if (needed <= room) return wanted;
  const auto part = [&](int cap) { return static_cast<int>(std::max<int64_t>(1, cap * room / needed)); };
  return {part(wanted.http), part(wanted.grpc)};
}

}  // namespace sessa
