// See http.h. The pool; addresses and requests.
#include "loadtest/http.h"

#include <charconv>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "boost/asio/steady_timer.hpp"
#include "loadtest/http_connection.h"

namespace sessa::loadtest {

namespace net = boost::asio;
namespace http = boost::beast::http;

absl::StatusOr<HttpUrl> ParseHttpUrl(absl::string_view text) {
  const auto bad = [&text](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "': ", why));
  };
  absl::string_view rest = text;
  if (absl::StartsWith(rest, "https://")) return bad("only http:// is spoken");
  absl::ConsumePrefix(&rest, "http://");
  if (absl::StrContains(rest, "://")) return bad("not an http:// address");
  HttpUrl url;
  const size_t slash = rest.find('/');
  if (slash != absl::string_view::npos) {
    url.path = std::string(absl::StripSuffix(rest.substr(slash), "/"));
    rest = rest.substr(0, slash);
  }
  url.authority = std::string(rest);
  absl::string_view port = "80";
  const size_t colon = rest.rfind(':');
  if (colon != absl::string_view::npos && rest.find(']', colon) == absl::string_view::npos) {
    port = rest.substr(colon + 1);
    rest = rest.substr(0, colon);
  }
  if (absl::ConsumePrefix(&rest, "[") && !absl::ConsumeSuffix(&rest, "]")) return bad("a [ without its ]");
  int number = 0;
  const auto end = std::from_chars(port.data(), port.data() + port.size(), number);
  if (end.ec != std::errc() || end.ptr != port.data() + port.size() || number < 1 || number > 65535)
    return bad(absl::StrCat("'", port, "' is not a port"));
  if (rest.empty()) return bad("there is no host");
  if (rest.find_first_of(" \t\r\n?#@") != absl::string_view::npos ||
      url.path.find_first_of(" \r\n?#") != url.path.npos)
    return bad("an address is HOST, HOST:PORT or http://HOST:PORT/PATH");
  url.host = std::string(rest);
  url.port = std::string(port);
  return url;
}

namespace {

HttpRequest MakeRequest(http::verb verb, const HttpUrl& url, absl::string_view path, absl::string_view key) {
  HttpRequest request(verb, absl::StrCat(url.path, path), 11);
  request.set(http::field::host, url.authority);
  request.set(http::field::user_agent, "sessa-loadtest");
  if (!key.empty()) request.set(http::field::authorization, absl::StrCat("Bearer ", key));
  return request;
}

}  // namespace

HttpRequest MakeGet(const HttpUrl& url, absl::string_view path, absl::string_view key) {
  return MakeRequest(http::verb::get, url, path, key);
}

HttpRequest MakePost(const HttpUrl& url, absl::string_view path, absl::string_view key, std::string body) {
  HttpRequest request = MakeRequest(http::verb::post, url, path, key);
  request.set(http::field::content_type, "application/json");
  request.body() = std::move(body);
  request.prepare_payload();
  return request;
}

void HttpHandler::Leave() {
  if (connection_ == nullptr) return;
  const std::shared_ptr<HttpConnection> connection = std::move(connection_);
  connection_ = nullptr;
  connection->Close();
}

HttpPool::~HttpPool() {
  for (const auto& connection : idle_) connection->Close();
}

void HttpPool::Send(std::shared_ptr<const HttpRequest> request, HttpHandler* handler) {
  while (!idle_.empty()) {
    const std::shared_ptr<HttpConnection> connection = std::move(idle_.back());
    idle_.pop_back();
    if (connection->is_open()) return connection->Send(std::move(request), handler);
  }
  SendOnNew(std::move(request), handler);
}

void HttpPool::SendOnNew(std::shared_ptr<const HttpRequest> request, HttpHandler* handler) {
  std::make_shared<HttpConnection>(this)->Connect(std::move(request), handler);
}

absl::StatusOr<std::vector<net::ip::tcp::endpoint>> Resolve(const HttpUrl& url) {
  net::io_context io;
  net::ip::tcp::resolver resolver(io);
  boost::system::error_code error;
  std::vector<net::ip::tcp::endpoint> endpoints;
  for (const auto& entry : resolver.resolve(url.host, url.port, error)) endpoints.push_back(entry.endpoint());
  if (error || endpoints.empty())
    return absl::UnavailableError(absl::StrCat("looking up ", url.host, ": ", error.message()));
  return endpoints;
}

namespace {

class FetchHandler final : public HttpHandler {
 public:
  explicit FetchHandler(net::io_context* io) : io_(io) {}
  void OnSent(double) override {}
  void OnHeaders(double, int status) override { answer_.status = status; }
  void OnBody(double, absl::string_view bytes) override { answer_.body.append(bytes.data(), bytes.size()); }
  void OnEnd(double) override { Finish(absl::OkStatus()); }
  void OnFailure(double, bool, const std::string& why) override { Finish(absl::UnavailableError(why)); }
  void OnTimeout() {
    Leave();
    Finish(absl::UnavailableError("no answer in time"));
  }
  absl::StatusOr<HttpAnswer> Take() {
    if (!status_.ok()) return status_;
    return std::move(answer_);
  }

 private:
  void Finish(absl::Status status) {
    status_ = std::move(status);
    io_->stop();
  }
  net::io_context* const io_;
  HttpAnswer answer_;
  absl::Status status_ = absl::InternalError("the loop ended early");
};

}  // namespace

absl::StatusOr<HttpAnswer> Fetch(const std::vector<net::ip::tcp::endpoint>& endpoints, HttpRequest request,
                                 double timeout_seconds) {
  net::io_context io(1);
  HttpPool pool(&io, Clock(), endpoints);
  FetchHandler handler(&io);
  net::steady_timer timer(io, Clock::ToDuration(timeout_seconds));
  timer.async_wait([&handler](boost::system::error_code error) {
    if (!error) handler.OnTimeout();
  });
  pool.Send(std::make_shared<HttpRequest>(std::move(request)), &handler);
  io.run();
  return handler.Take();
}

}  // namespace sessa::loadtest
