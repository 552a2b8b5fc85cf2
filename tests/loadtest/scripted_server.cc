// See scripted_server.h. A coroutine for each connection, all on one thread.
#include "tests/loadtest/scripted_server.h"

#include <atomic>
#include <deque>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "boost/asio/awaitable.hpp"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/detached.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/redirect_error.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "boost/json.hpp"

namespace sessa::loadtest {
namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;
namespace json = boost::json;
using ErrorCode = boost::system::error_code;
using Tcp = net::ip::tcp;

SteadyTime Now() { return std::chrono::steady_clock::now(); }

struct Connection {
  explicit Connection(Tcp::socket s) : socket(std::move(s)), timer(socket.get_executor()) {}

  Tcp::socket socket;
  net::steady_timer timer;
  boost::beast::flat_buffer buffer;
  bool answering = false;
  bool left = false;
};

std::string Reply(int status, const std::string& body, const std::string& type = "application/json",
                  const std::string& retry_after = "") {
  std::string out = absl::StrCat("HTTP/1.1 ", status, " ",
                                 std::string(http::obsolete_reason(static_cast<http::status>(status))),
                                 "\r\nContent-Type: ", type, "\r\nContent-Length: ", body.size(), "\r\n");
  if (!retry_after.empty()) absl::StrAppend(&out, "Retry-After: ", retry_after, "\r\n");
  return absl::StrCat(out, "\r\n", body);
}

std::string ErrorBody(int status, const std::string& message) {
  return json::serialize(
      json::value{{"error", {{"message", message}, {"type", "scripted"}, {"code", status}}}});
}

// An event's data as a chunk of the stream.
std::string Event(const std::string& data) {
  return absl::StrCat(absl::Hex(data.size() + 8), "\r\ndata: ", data, "\n\n\r\n");
}

// What the answer to a request needs to know of its body.
struct Asked {
  bool usage = false;      // a stream ends with it
  bool token_ids = false;  // of what was generated
};

// Empty when fine, else what is wrong.
std::string Read(const std::string& body, bool takes_token_ids, ServedRequest* request, Asked* asked) {
  ErrorCode ec;
  const json::value value = json::parse(body, ec);
  const json::object* object = value.if_object();
  if (ec || object == nullptr) return "The body is not a JSON object.";
  const auto flag = [](const json::object& in, const char* name) {
    const json::value* found = in.if_contains(name);
    return found != nullptr && found->is_bool() && found->get_bool();
  };
  request->stream = flag(*object, "stream");
  asked->token_ids = flag(*object, "return_token_ids");
  if (const json::value* options = object->if_contains("stream_options"); options != nullptr)
    asked->usage = options->is_object() && flag(options->get_object(), "include_usage");
  const json::value* max_tokens = object->if_contains("max_tokens");
  request->max_tokens = max_tokens != nullptr && max_tokens->is_int64() ? max_tokens->get_int64() : 16;
  const json::value* prompt = object->if_contains("prompt");
  if (prompt != nullptr && prompt->is_string()) {
    const std::vector<std::string> words =
        absl::StrSplit(std::string(prompt->get_string()), ' ', absl::SkipWhitespace());
    request->prompt_tokens = static_cast<int>(words.size());
  } else if (prompt != nullptr && prompt->is_array() && takes_token_ids) {
    request->prompt_tokens = static_cast<int>(prompt->get_array().size());
  } else {
    return takes_token_ids ? "prompt: a text or token ids" : "prompt: a text";
  }
  return "";
}

}  // namespace

class ScriptedServer::Impl {
 public:
  explicit Impl(ScriptedServerOptions options)
      : options_(std::move(options)), acceptor_(io_, {net::ip::address_v4::loopback(), 0}) {
    port_ = acceptor_.local_endpoint().port();
    net::co_spawn(io_, Accept(), net::detached);
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Impl() {
    io_.stop();
    thread_.join();
  }

  std::vector<ServedRequest> Requests() {
    std::promise<std::vector<ServedRequest>> promise;
    net::post(io_, [this, &promise] { promise.set_value({requests_.begin(), requests_.end()}); });
    return promise.get_future().get();
  }
  int port() const { return port_; }
  int num_open() const { return num_open_; }

 private:
  net::awaitable<void> Accept() {
    while (true) {
      ErrorCode ec;
      Tcp::socket socket = co_await acceptor_.async_accept(net::redirect_error(net::use_awaitable, ec));
      if (ec) continue;
      socket.set_option(Tcp::no_delay(true), ec);
      net::co_spawn(io_, Serve(std::make_shared<Connection>(std::move(socket))), net::detached);
    }
  }

  net::awaitable<void> Serve(std::shared_ptr<Connection> c) {
    ++num_open_;
    bool open = true;
    while (open) {
      http::request_parser<http::string_body> parser;
      parser.body_limit(boost::none);
      ErrorCode ec;
      co_await http::async_read_header(c->socket, c->buffer, parser,
                                       net::redirect_error(net::use_awaitable, ec));
      if (ec) break;
      const SteadyTime head_received = Now();
      if (!parser.is_done())
        co_await http::async_read(c->socket, c->buffer, parser, net::redirect_error(net::use_awaitable, ec));
      if (ec) break;
      if (parser.get().method() == http::verb::post) {
        c->answering = true;
        Watch(c);
        open = co_await Answer(c.get(), parser.get(), head_received);
        c->answering = false;
        c->socket.cancel(ec);  // the watch
      } else {
        const std::string reply = Look(parser.get().target());
        open = co_await Write(c.get(), reply);
      }
    }
    --num_open_;
  }

  net::awaitable<bool> Write(Connection* c, const std::string& bytes) {
    ErrorCode ec;
    co_await net::async_write(c->socket, net::buffer(bytes), net::redirect_error(net::use_awaitable, ec));
    co_return !ec;
  }

  // Until `due`; false when the client left.
  net::awaitable<bool> Wait(Connection* c, SteadyTime due) {
    if (due > Now() && !c->left) {
      ErrorCode ec;
      c->timer.expires_at(due);
      co_await c->timer.async_wait(net::redirect_error(net::use_awaitable, ec));
    }
    co_return !c->left;
  }

  // Sees a client that leaves while it is answered.
  static void Watch(const std::shared_ptr<Connection>& c) {
    c->socket.async_wait(Tcp::socket::wait_read, [c](ErrorCode ec) {
      ErrorCode ignored;
      if (ec || !c->answering || c->socket.available(ignored) > 0) return;  // or its next request
      c->left = true;
      c->timer.cancel();
    });
  }

  std::string Look(boost::beast::string_view path) const {
    if (path == "/v1/models") {
      return Reply(200, json::serialize(json::value{{"object", "list"},
                                                    {"data",
                                                     {{{"id", options_.model},
                                                       {"object", "model"},
                                                       {"owned_by", "scripted"},
                                                       {"max_model_len", options_.max_model_len},
                                                       {"vocab_size", options_.vocab_size}}}}}));
    }
    if (path == "/health") return Reply(200, "{\"status\":\"ok\"}");
    if (path == "/v1/limits" && !options_.limits.empty()) return Reply(200, options_.limits);
    if (path == "/metrics" && options_.metrics)
      return Reply(200, options_.metrics(), "text/plain; version=0.0.4");
    return Reply(404, ErrorBody(404, "There is nothing."));
  }

  // True when the connection may be used again.
  net::awaitable<bool> Answer(Connection* c, const http::request<http::string_body>& message,
                              SteadyTime head_received);
  net::awaitable<bool> AnswerWhole(Connection* c, const ScriptedAnswer& script, ServedRequest* request);
  net::awaitable<bool> AnswerStream(Connection* c, const ScriptedAnswer& script, const Asked& asked,
                                    ServedRequest* request);
  std::string Usage(const ScriptedAnswer& script, const ServedRequest& request, int num_tokens) const;
  // What opens each object of an answer.
  std::string Opening(const ServedRequest& request) const {
    return absl::StrCat("{\"id\":\"cmpl-", request.index,
                        "\",\"object\":\"text_completion\",\"created\":0,\"model\":\"", options_.model,
                        "\",\"choices\":[");
  }

  const ScriptedServerOptions options_;
  net::io_context io_{1};
  Tcp::acceptor acceptor_;
  int port_ = 0;
  std::deque<ServedRequest> requests_;  // on the thread only
  std::atomic<int> num_open_ = 0;
  std::thread thread_;
};

namespace {

// When token `k` is due.
SteadyTime Due(const ScriptedAnswer& script, const ServedRequest& request, int k) {
  const Delay stall = script.stall_at >= 0 && k >= script.stall_at ? script.stall : Delay(0);
  return request.received + script.to_headers + script.to_first_token +
         (k / script.tokens_per_event) * script.between_events + stall;
}

std::string Text(int num_tokens) {
  std::string text;
  for (int i = 0; i < num_tokens; ++i) text += " t";
  return text;
}

// One choice with tokens [from, to).
std::string Choice(int from, int to, const std::string& finish_reason, bool token_ids) {
  std::string out =
      absl::StrCat("{\"index\":0,\"text\":\"", Text(to - from), "\",\"logprobs\":null,\"finish_reason\":",
                   finish_reason.empty() ? "null" : absl::StrCat("\"", finish_reason, "\""));
  if (token_ids) {
    out += ",\"token_ids\":[";
    for (int k = from; k < to; ++k) absl::StrAppend(&out, k > from ? "," : "", k % 10);
    out += "]";
  }
  return out + "}";
}

}  // namespace

std::string ScriptedServer::Impl::Usage(const ScriptedAnswer& script, const ServedRequest& request,
                                        int num_tokens) const {
  return json::serialize(json::value{{"prompt_tokens", request.prompt_tokens},
                                     {"completion_tokens", num_tokens},
                                     {"total_tokens", request.prompt_tokens + num_tokens},
                                     {"prompt_tokens_details", {{"cached_tokens", script.cached_tokens}}}});
}

net::awaitable<bool> ScriptedServer::Impl::Answer(Connection* c,
                                                  const http::request<http::string_body>& message,
                                                  SteadyTime head_received) {
  ServedRequest& request = requests_.emplace_back();
  request.received = Now();
  request.head_received = head_received;
  request.index = static_cast<int64_t>(requests_.size()) - 1;
  request.path = std::string(message.target());
  request.authorization = std::string(message[http::field::authorization]);
  Asked asked;
  std::string wrong = request.path != "/v1/completions"
                          ? "There is nothing."
                          : Read(message.body(), options_.takes_token_ids, &request, &asked);
  if (options_.keep_bodies) request.body = message.body();
  ScriptedAnswer script;
  if (wrong.empty() && options_.script) script = options_.script(request);
  if (!wrong.empty()) script.status = request.path == "/v1/completions" ? 400 : 404;
  if (script.num_tokens == 0) script.num_tokens = request.max_tokens;
  request.status = script.status;

  bool reusable = false;
  if (script.status != 200) {
    if (wrong.empty()) wrong = "The script says so.";
    const std::string reply =
        Reply(script.status, ErrorBody(script.status, wrong), "application/json", script.retry_after);
    if (co_await Wait(c, request.received + script.to_headers)) {
      request.headers_sent = Now();
      reusable = co_await Write(c, reply);
    }
  } else if (request.stream) {
    reusable = co_await AnswerStream(c, script, asked, &request);
  } else {
    reusable = co_await AnswerWhole(c, script, &request);
  }
  request.ended = Now();
  request.client_left = c->left;
  co_return reusable;
}

net::awaitable<bool> ScriptedServer::Impl::AnswerWhole(Connection* c, const ScriptedAnswer& script,
                                                       ServedRequest* request) {
  const bool breaks = script.break_after >= 0;
  const int num_tokens = breaks ? script.break_after : script.num_tokens;
  const std::string reply =
      Reply(200, absl::StrCat(Opening(*request), Choice(0, num_tokens, script.finish_reason, false),
                              "],\"usage\":", Usage(script, *request, num_tokens), "}"));
  if (!co_await Wait(c, Due(script, *request, num_tokens - 1)) || breaks) co_return false;
  request->headers_sent = Now();
  request->events.push_back({request->headers_sent, num_tokens});
  co_return co_await Write(c, reply);
}

net::awaitable<bool> ScriptedServer::Impl::AnswerStream(Connection* c, const ScriptedAnswer& script,
                                                        const Asked& asked, ServedRequest* request) {
  if (!co_await Wait(c, request->received + script.to_headers)) co_return false;
  request->headers_sent = Now();
  std::string bytes =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: "
      "chunked\r\n\r\n";
  if (!co_await Write(c, bytes)) co_return false;

  const std::string opening = Opening(*request);
  const std::string closing = asked.usage ? "],\"usage\":null}" : "]}";
  const int num_tokens = script.break_after >= 0 ? script.break_after : script.num_tokens;
  for (int k = 0; k < num_tokens; k += script.tokens_per_event) {
    const int end = std::min(k + script.tokens_per_event, num_tokens);
    const bool last = end == script.num_tokens && script.end_with.empty();
    bytes = Event(
        absl::StrCat(opening, Choice(k, end, last ? script.finish_reason : "", asked.token_ids), closing));
    if (!co_await Wait(c, Due(script, *request, k))) co_return false;
    request->events.push_back({Now(), end - k});
    if (!co_await Write(c, bytes)) co_return false;
  }
  if (script.break_after >= 0) co_return false;  // the caller closes the connection
  bytes.clear();
  if (!script.end_with.empty()) {
    bytes = Event(script.end_with);
  } else {
    if (asked.usage)
      bytes = Event(absl::StrCat(opening, "],\"usage\":", Usage(script, *request, num_tokens), "}"));
    bytes += Event("[DONE]");
  }
  bytes += "0\r\n\r\n";
  co_return co_await Write(c, bytes);
}

ScriptedServer::ScriptedServer(ScriptedServerOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}
ScriptedServer::~ScriptedServer() = default;
int ScriptedServer::port() const { return impl_->port(); }
std::vector<ServedRequest> ScriptedServer::Requests() const { return impl_->Requests(); }
int ScriptedServer::num_open_connections() const { return impl_->num_open(); }

}  // namespace sessa::loadtest
