// HTTP/1.1 to one server, for the REST client and for reading /metrics: keep-alive connections, answers
// handed on as their bytes come. All on one thread, the loop's. The time of an event is read when the loop
// learns that bytes are there, before anything is parsed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/beast/http/message.hpp"
#include "boost/beast/http/string_body.hpp"
#include "loadtest/clock.h"

namespace sessa::loadtest {

struct HttpUrl {
  std::string host;  // without brackets
  std::string port;
  std::string path;       // "" or "/...", without a slash at its end
  std::string authority;  // as the Host header has it
};
// "http://HOST[:PORT][/PATH]", or without "http://". INVALID_ARGUMENT says what is wrong.
absl::StatusOr<HttpUrl> ParseHttpUrl(absl::string_view url);

using HttpRequest = boost::beast::http::request<boost::beast::http::string_body>;
HttpRequest MakeGet(const HttpUrl& url, absl::string_view path, absl::string_view key);
HttpRequest MakePost(const HttpUrl& url, absl::string_view path, absl::string_view key, std::string body);

class HttpConnection;

// Who waits for an answer. The last call is OnEnd or OnFailure, unless it leaves before, which it may do in
// OnBody and outside of these calls.
class HttpHandler {
 public:
  virtual ~HttpHandler() { Leave(); }
  virtual void OnSent(
      double at) = 0;  // before the first byte is handed to the system; may come twice, see HttpPool
  virtual void OnHeaders(double at, int status) = 0;
  virtual void OnBody(double at, absl::string_view bytes) = 0;
  virtual void OnEnd(double at) = 0;
  // `answering`: the answer had begun.
  virtual void OnFailure(double at, bool answering, const std::string& why) = 0;

 protected:
  // Closes the connection: no more calls, the server sees the client gone.
  void Leave();

 private:
  friend class HttpConnection;
  std::shared_ptr<HttpConnection> connection_;  // while it waits
};

// The connections to one server. A request takes the one used last, or a new one. A kept connection that
// turns out to be closed before a byte of the answer has come costs one more try on a new one, as RFC
// 9112 9.3.1 has it.
class HttpPool {
 public:
  // `endpoints`: tried in order.
  HttpPool(boost::asio::io_context* io, const Clock& clock,
           std::vector<boost::asio::ip::tcp::endpoint> endpoints)
      : io_(io), clock_(clock), endpoints_(std::move(endpoints)) {}
  ~HttpPool();
  HttpPool(const HttpPool&) = delete;

  void Send(std::shared_ptr<const HttpRequest> request, HttpHandler* handler);

 private:
  friend class HttpConnection;
  void SendOnNew(std::shared_ptr<const HttpRequest> request, HttpHandler* handler);

  boost::asio::io_context* const io_;
  const Clock clock_;
  const std::vector<boost::asio::ip::tcp::endpoint> endpoints_;
  std::vector<std::shared_ptr<HttpConnection>> idle_;
};

// UNAVAILABLE: no such host.
absl::StatusOr<std::vector<boost::asio::ip::tcp::endpoint>> Resolve(const HttpUrl& url);

struct HttpAnswer {
  int status = 0;
  std::string body;
};
// Runs a loop of its own until the answer is there. UNAVAILABLE says why there is none.
absl::StatusOr<HttpAnswer> Fetch(const std::vector<boost::asio::ip::tcp::endpoint>& endpoints,
                                 HttpRequest request, double timeout_seconds);

}  // namespace sessa::loadtest
