// A listening TCP socket, for whoever accepts connections in a way of its own.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/net/scoped_fd.h"

namespace sessa {

// Non-blocking, on the first address that `host` names; port 0: of the system's choice. UNAVAILABLE, with
// "WHAT cannot listen on HOST:PORT: REASON".
absl::StatusOr<ScopedFd> ListenOn(const std::string& what, const std::string& host, int port);

}  // namespace sessa
