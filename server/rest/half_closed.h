// A client that has closed its side may be waiting for the answer (RFC 9112, 9.6), or be gone: both look the
// same until it is sent something, which comes back as a reset from one that is gone. What it is sent means
// nothing: an interim response (RFC 9110, 15.2), or a comment between a stream's events.
#pragma once

#include <sys/socket.h>

#include <string>

#include "server/rest/http_message.h"

namespace sessa {

// False: there is nothing that may be sent to it now, or it cannot be sent, so that it must count as gone.
// `in_stream`: the head of its answer is written, and no event is on its way. The socket is plain.
inline bool SendNothing(int fd, const RequestHead& head, bool in_stream) {
  if (!in_stream && head.version < 11) return false;  // HTTP/1.0 has no interim responses
  const std::string bytes = in_stream ? StreamPiece(":\n\n", head) : "HTTP/1.1 100 Continue\r\n\r\n";
  return send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

}  // namespace sessa
