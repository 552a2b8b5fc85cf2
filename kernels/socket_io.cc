#include "kernels/socket_io.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

Moved Result(ssize_t n) {
  if (n > 0) return {absl::OkStatus(), static_cast<size_t>(n)};
  // A peer that ends resets the connection if it left anything unread, and closes it otherwise.
  if (n == 0 || errno == ECONNRESET || errno == EPIPE)
    return {absl::UnavailableError("the connection was closed")};
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return {};
  return {absl::UnavailableError(absl::ErrnoToStatus(errno, "the connection").message())};
}

template <class Byte, class Try>
absl::Status MoveAll(int socket, Byte* bytes, size_t size, short event, std::chrono::milliseconds limit,
                     const Try& attempt) {
  while (size > 0) {
    const Moved moved = attempt(socket, bytes, size);
    if (!moved.status.ok()) return moved.status;
    bytes += moved.bytes;
    size -= moved.bytes;
    if (moved.bytes > 0) continue;
    pollfd waited = {socket, event, 0};
    if (poll(&waited, 1, PollTimeout(limit)) == 0)
      return absl::UnavailableError(absl::StrCat("nothing came or went for ", limit.count(), " ms"));
  }
  return absl::OkStatus();
}

}  // namespace

int PollTimeout(std::chrono::milliseconds limit) {
  if (limit == kNoLimit) return -1;
  return static_cast<int>(std::clamp<int64_t>(limit.count(), 0, std::numeric_limits<int>::max()));
}

Moved TrySend(int socket, const void* bytes, size_t size) {
  return Result(send(socket, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL));
}

Moved TryReceive(int socket, void* bytes, size_t size) {
  return Result(recv(socket, bytes, size, MSG_DONTWAIT));
}

absl::Status SendAll(int socket, const void* bytes, size_t size, std::chrono::milliseconds limit) {
  return MoveAll(socket, static_cast<const char*>(bytes), size, POLLOUT, limit, TrySend);
}

absl::Status ReceiveAll(int socket, void* bytes, size_t size, std::chrono::milliseconds limit) {
  return MoveAll(socket, static_cast<char*>(bytes), size, POLLIN, limit, TryReceive);
}

}  // namespace sessa
