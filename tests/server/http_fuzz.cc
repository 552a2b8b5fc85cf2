// Input: bytes as a client sends them. Checks that whatever of a request reaches a reply's head - the request
// id, the path, an error - leaves it a well-formed head, with nothing smuggled into it.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "boost/asio/buffer.hpp"
#include "boost/beast/http/empty_body.hpp"
#include "server/rest/http_read.h"
#include "server/rest/router.h"

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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sessa::Limits limits;
  sessa::RequestParser parser;
  parser.header_limit(static_cast<uint32_t>(limits.max_header_bytes));
  parser.body_limit(static_cast<uint64_t>(4096));
  parser.eager(true);
  boost::system::error_code ec;
  parser.put(boost::asio::buffer(data, size), ec);
  if (ec == http::error::need_more) ec = {};
  sessa::RequestHead head;
  head.request_id = sessa::ChooseRequestId("");
  if (ec) {
    if (const auto reply = sessa::ReplyToReadError(ec, false, limits)) CheckReply(*reply, head);
    return 0;
  }
  if (!parser.is_header_done()) return 0;
  head = sessa::HeadOf(parser);
  if (head.request_id.empty() || head.request_id.size() > 128) std::abort();
  const auto route = sessa::FindRoute(head.path);
  if (route.has_value() && !route->model.empty())
    CheckReply(sessa::ErrorReply(sessa::ModelNotFoundError(route->model)), head);
  CheckReply(sessa::ErrorReply(404, "not_found", head.path), head);
  return 0;
}
