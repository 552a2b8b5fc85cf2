// See transport.h.
#include "server/net/transport.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cerrno>
#include <new>
#include <utility>

namespace sessa {
namespace {

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(ScopedFd fd) : Transport(std::move(fd)) {}

  State Handshake() override { return State::kDone; }
  Result Read(char* bytes, size_t size) override {
    const ssize_t n = recv(fd(), bytes, size, 0);
    if (n == 0) return {State::kEnd};
    return Judge(n, State::kWantRead);
  }
  Result Write(const char* bytes, size_t size) override {
    return Judge(send(fd(), bytes, size, MSG_NOSIGNAL), State::kWantWrite);
  }
  void ShutdownWrite() override { shutdown(fd(), SHUT_WR); }

 private:
  static Result Judge(ssize_t n, State wanted) {
    if (n > 0) return {State::kDone, static_cast<size_t>(n)};
    return {errno == EAGAIN || errno == EINTR ? wanted : State::kError};
  }
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(ScopedFd fd, SSL_CTX* context) : Transport(std::move(fd)), ssl_(SSL_new(context)) {
    if (ssl_ == nullptr || SSL_set_fd(ssl_, Transport::fd()) != 1) {
      SSL_free(ssl_);
      throw std::bad_alloc();
    }
    SSL_set_mode(ssl_, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  }
  ~TlsTransport() override { SSL_free(ssl_); }

  State Handshake() override {
    ERR_clear_error();
    return Judge(SSL_accept(ssl_));
  }
  Result Read(char* bytes, size_t size) override {
    ERR_clear_error();
    size_t n = 0;
    const State state = Judge(SSL_read_ex(ssl_, bytes, size, &n));
    return {state, n};
  }
  Result Write(const char* bytes, size_t size) override {
    ERR_clear_error();
    size_t n = 0;
    const State state = Judge(SSL_write_ex(ssl_, bytes, size, &n));
    return {state, n};
  }
  void ShutdownWrite() override {
    ERR_clear_error();
    if (SSL_is_init_finished(ssl_)) SSL_shutdown(ssl_);  // "close notify"; the peer's is not waited for
    ERR_clear_error();
    shutdown(fd(), SHUT_WR);
  }

 private:
  State Judge(int result) const {
    switch (SSL_get_error(ssl_, result)) {
      case SSL_ERROR_NONE: return State::kDone;
      case SSL_ERROR_WANT_READ: return State::kWantRead;
      case SSL_ERROR_WANT_WRITE: return State::kWantWrite;
      case SSL_ERROR_ZERO_RETURN: return State::kEnd;
      default: ERR_clear_error(); return State::kError;
    }
  }

  SSL* const ssl_;
};

}  // namespace

std::unique_ptr<Transport> Transport::Make(ScopedFd socket, boost::asio::ssl::context* tls) {
  if (tls == nullptr) return std::make_unique<PlainTransport>(std::move(socket));
  return std::make_unique<TlsTransport>(std::move(socket), tls->native_handle());
}

}  // namespace sessa
