// See descriptors.h.
#include "server/net/descriptors.h"

#include <netdb.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

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

std::string PeerName(int fd) {
  sockaddr_storage peer = {};
  socklen_t size = sizeof(peer);
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0 ||
      (peer.ss_family != AF_INET && peer.ss_family != AF_INET6) ||
      getnameinfo(reinterpret_cast<sockaddr*>(&peer), size, host, sizeof(host), port, sizeof(port),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "";
  return peer.ss_family == AF_INET6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
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
