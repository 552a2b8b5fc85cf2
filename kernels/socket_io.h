// Bytes to and from the process at the other end of a connected socket, whole or not at all. One thread for
// each direction at a time. A third may shut the socket down, which ends both. Used between ranks in
// processes of their own.
#pragma once

#include <chrono>
#include <cstddef>

#include "absl/status/status.h"

namespace sessa {

// No limit: who waits is ended by a shutdown of the socket.
inline constexpr std::chrono::milliseconds kNoLimit = std::chrono::milliseconds::max();

// UNAVAILABLE: the connection ended, or `limit` went by without a byte.
absl::Status SendAll(int socket, const void* bytes, size_t size, std::chrono::milliseconds limit);
absl::Status ReceiveAll(int socket, void* bytes, size_t size, std::chrono::milliseconds limit);

// What may be sent or received at once: the number of bytes, 0 where it would block; UNAVAILABLE when the
// connection has ended. Requires: size > 0.
struct Moved {
  absl::Status status;
  size_t bytes = 0;
};
Moved TrySend(int socket, const void* bytes, size_t size);
Moved TryReceive(int socket, void* bytes, size_t size);

// For poll, which takes -1 for ever.
int PollTimeout(std::chrono::milliseconds limit);

}  // namespace sessa
