// A client's socket, plain or under TLS, read and written without blocking and without buffers of its own
// while it is idle, so that thousands of quiet connections cost little. Not thread-safe. The process must
// ignore SIGPIPE when TLS is used: OpenSSL writes without MSG_NOSIGNAL.
#pragma once

#include <memory>

#include "boost/asio/ssl/context.hpp"
#include "server/net/scoped_fd.h"

namespace sessa {

class Transport {
 public:
  enum class State {
    kDone,
    kWantRead,   // call again when the socket can be read,
    kWantWrite,  // or written
    kEnd,        // the peer has ended its side
    kError,
  };
  struct Result {
    State state = State::kDone;
    size_t num_bytes = 0;  // above 0 when kDone, but for Handshake
  };

  // `tls` null: plain. The socket is non-blocking.
  static std::unique_ptr<Transport> Make(ScopedFd socket, boost::asio::ssl::context* tls);
  virtual ~Transport() = default;

  int fd() const { return fd_.get(); }
  // Until it is done nothing else may be called.
  virtual State Handshake() = 0;
  virtual Result Read(char* bytes, size_t size) = 0;
  virtual Result Write(const char* bytes, size_t size) = 0;
  // The peer will read the end after all that was written.
  virtual void ShutdownWrite() = 0;

 protected:
  explicit Transport(ScopedFd fd) : fd_(std::move(fd)) {}

 private:
  const ScopedFd fd_;
};

}  // namespace sessa
