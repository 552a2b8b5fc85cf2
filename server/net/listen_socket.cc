#include "server/net/listen_socket.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

constexpr int kBacklog = 4096;  // the kernel cuts it to net.core.somaxconn

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

}  // namespace

absl::StatusOr<ScopedFd> ListenOn(const std::string& what, const std::string& host, int port) {
  const std::string where = absl::StrCat(what, " cannot listen on ", host, ":", port);
  addrinfo hints = {}, *found = nullptr;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  if (int error = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found); error != 0)
    return absl::UnavailableError(absl::StrCat(where, ": ", gai_strerror(error)));
  const std::unique_ptr<addrinfo, FreeAddresses> addresses(found);
  ScopedFd fd(socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, found->ai_protocol));
  const int on = 1;
  // Past TIME_WAIT; a second listener on the port still fails.
  if (!fd.ok() || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || listen(fd.get(), kBacklog) != 0)
    return absl::UnavailableError(absl::ErrnoToStatus(errno, where).message());
  return fd;
}

}  // namespace sessa
