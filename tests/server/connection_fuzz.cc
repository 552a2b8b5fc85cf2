// Input: all that one client sends on one connection, as it comes. It goes through the real Connection, its
// handlers and a service whose engine answers at once. Checks that what comes back is a series of well-formed
// replies, no more of them than an independent reading of the bytes sees requests (and one for the request
// that ends the connection), that each request has its outcome, and that the connection ends when the client
// does.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "boost/asio/buffer.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/strand.hpp"
#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/string_body.hpp"
#include "server/rest/connection.h"
#include "server/rest/yielding_executor.h"
#include "tests/fuzz_check.h"
#include "tests/server/fuzz_service.h"
#include "tests/server/http_model.h"

namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;

constexpr size_t kMaxBytes = 8 << 10;

using sessa::Check;

// What the server writes for `input`, to the connection's end.
std::string Talk(sessa::Service* service, std::string_view input) {
  static const auto* options = new sessa::RestServerOptions();
  auto registry =
      std::make_shared<sessa::ConnectionRegistry>(sessa::Listener::kHttp, &service->metrics().connections());
  auto context = std::make_shared<sessa::ConnectionContext>(*options, service, sessa::Handlers::Scope::kAll,
                                                            std::move(registry));
  auto io = std::make_shared<net::io_context>(1);
  int ends[2];
  Check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  net::ip::tcp::socket socket(
      net::make_strand(sessa::YieldingExecutor(io->get_executor(), io->get_executor())));
  socket.assign(net::ip::tcp::v4(), ends[0]);  // any stream socket's descriptor does
  std::weak_ptr<sessa::Connection> connection;
  {
    auto made = sessa::MakeConnection(io, std::move(socket), nullptr, context);
    made->Start();
    connection = made;
  }
  std::string output;
  char buffer[16 << 10];
  // Runs all that can run, sends what the server takes, reads what it wrote.
  const auto turn = [&] {
    // The text pool's work keeps `io` too: it is awaited.
    bool moved = io.use_count() > 1 ? io->run_one_for(std::chrono::milliseconds(1)), true : io->poll() > 0;
    io->restart();
    if (!input.empty()) {
      const ssize_t n = send(ends[1], input.data(), input.size(), MSG_NOSIGNAL);
      if (n > 0) input.remove_prefix(n), moved = true;
      if (n < 0 && errno == EPIPE) input = {};
    }
    for (ssize_t n; (n = recv(ends[1], buffer, sizeof(buffer), 0)) > 0; moved = true)
      output.append(buffer, n);
    return moved;
  };
  while (turn()) {
  }
  shutdown(ends[1], SHUT_WR);
  while (turn()) {
  }
  Check(connection.expired());  // nothing waits, and nobody keeps it
  close(ends[1]);
  return output;
}

void CheckReplies(std::string_view output, std::string_view input) {
  bool ended = false;
  while (!output.empty()) {
    Check(!ended);
    http::response_parser<http::string_body> parser;
    parser.body_limit(boost::none);
    const sessa::ModelRequest request = sessa::ReadRequest(input);
    parser.skip(request.is_head);
    parser.eager(true);
    boost::system::error_code ec;
    const size_t used = parser.put(net::buffer(output.data(), output.size()), ec);
    if (!ec && !parser.is_done()) parser.put_eof(ec);  // HTTP/1.0
    Check(!ec || ec == http::error::need_more);
    Check(parser.is_header_done());
    output.remove_prefix(used);
    const unsigned status = parser.get().result_int();
    if (status == 100) continue;  // of the request that follows
    Check(parser.is_done() && parser.get().count("X-Request-Id") == 1);
    if (request.kind == sessa::ModelRequest::Kind::kComplete) {
      input.remove_prefix(request.end);
    } else {
      // OPTIONS is answered by its head alone; what a body would be is not read then.
      Check((status >= 400 || (request.is_options && status == 204)) && !parser.keep_alive());
    }
    ended = !parser.keep_alive();
    // Of a head that is no HTTP the method is not known either: the error of such a HEAD has its text.
    if (ended && request.is_head && (status == 400 || request.kind != sessa::ModelRequest::Kind::kComplete)) {
      const auto length = parser.content_length();
      Check(output.empty() || (length.has_value() && output.size() == *length));
      return;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static sessa::Service* const service = sessa::MakeFuzzService().release();
  if (size > kMaxBytes) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  CheckReplies(Talk(service, input), input);
  Check(sessa::AllEnded(service));
  return 0;
}
