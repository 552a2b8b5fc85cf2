// Input: bytes as a client sends them, one request after the other. Checks that each request that is taken
// ends where an independent reading of RFC 9112 sees its end, so that nobody's body is anybody's request; and
// that whatever of a request reaches a reply's head - the request id, the path, an error - leaves it a
// well-formed head, with nothing smuggled into it.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "boost/asio/buffer.hpp"
#include "boost/beast/http/empty_body.hpp"
#include "server/rest/http_read.h"
#include "server/rest/router.h"
#include "tests/server/http_model.h"

namespace {

namespace http = boost::beast::http;

void CheckReply(const sessa::Reply& reply, const sessa::RequestHead& head) {
  const std::string bytes = sessa::SerializeHead(reply, head, false, false);
  http::response_parser<http::empty_body> parser;
  parser.skip(true);
  boost::system::error_code ec;
  const size_t used = parser.put(boost::asio::buffer(bytes), ec);
  if (ec || !parser.is_header_done() || used != bytes.size()) std::abort();
  if (parser.get()["X-Request-Id"] != head.request_id || parser.get().count("X-Request-Id") > 1) std::abort();
  if (static_cast<int>(parser.get().result_int()) != reply.status) std::abort();
}

// Reads one request of `bytes` as a connection does; how many bytes it has, or 0 when there is none or the
// connection would end.
size_t ReadOne(std::string_view bytes, const sessa::Limits& limits) {
  size_t used = 0;  // the blank lines before it
  while (used < bytes.size() && (bytes[used] == '\r' || bytes[used] == '\n')) ++used;
  sessa::RequestParser parser;
  parser.header_limit(static_cast<uint32_t>(limits.max_header_bytes));
  parser.body_limit(boost::none);
  boost::system::error_code ec;
  used += parser.put(boost::asio::buffer(bytes.data() + used, bytes.size() - used), ec);
  if (ec == http::error::need_more) return 0;
  if (!ec) ec = sessa::CheckFraming(parser);
  sessa::RequestHead head;
  head.request_id = sessa::ChooseRequestId("");
  if (!ec) {
    head = sessa::HeadOf(parser);
    if (head.request_id.empty() || head.request_id.size() > 128) std::abort();
    const auto route = sessa::FindRoute(head.path);
    if (route.has_value() && !route->model.empty())
      CheckReply(sessa::ErrorReply(sessa::ModelNotFoundError(route->model)), head);
    CheckReply(sessa::ErrorReply(404, "not_found", head.path), head);
    parser.body_limit(uint64_t{4096});
    parser.eager(true);
    while (!ec && !parser.is_done()) {
      if (used == bytes.size()) return 0;
      const size_t n = parser.put(boost::asio::buffer(bytes.data() + used, bytes.size() - used), ec);
      if (n == 0 && !ec) std::abort();  // a connection would turn for ever
      used += n;
    }
  }
  if (ec == http::error::need_more) return 0;
  if (ec) {
    if (const auto reply = sessa::ReplyToReadError(ec, false, limits)) CheckReply(*reply, head);
    return 0;
  }
  return used;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sessa::Limits limits;
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (int i = 0; i < 16 && !bytes.empty(); ++i) {
    const size_t used = ReadOne(bytes, limits);
    if (used == 0) break;
    const sessa::ModelRequest model = sessa::ReadRequest(bytes);
    if (model.kind != sessa::ModelRequest::Kind::kComplete || model.end != used) std::abort();
    bytes.remove_prefix(used);
  }
  return 0;
}
