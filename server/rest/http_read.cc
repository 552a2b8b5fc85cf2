// See http_read.h.
#include "server/rest/http_read.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "boost/beast/http/error.hpp"
#include "boost/system/errc.hpp"

namespace sessa {
namespace {

namespace http = boost::beast::http;

absl::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

// The path of any form of target (RFC 9112, 3.2): a proxy is told "http://host/path", and so may a server be.
absl::string_view PathOf(absl::string_view target) {
  const absl::string_view whole = target.substr(0, target.find('?'));
  absl::string_view path = whole;
  for (const absl::string_view scheme : {"http://", "https://"}) {
    if (!absl::StartsWithIgnoreCase(whole, scheme)) continue;
    path.remove_prefix(scheme.size());
    const size_t slash = path.find('/');
    return slash == path.npos ? "/" : path.substr(slash);
  }
  return path;
}

}  // namespace

RequestHead HeadOf(const RequestParser& parser) {
  const auto& message = parser.get();
  RequestHead head;
  head.method = std::string(message.method_string());
  const absl::string_view path = PathOf(View(message.target()));
  if (!PercentDecode(path, &head.path)) head.path = std::string(path);
  head.version = static_cast<int>(message.version());
  head.keep_alive = parser.keep_alive();
  head.has_host = message.count(http::field::host) > 0;
  head.has_body = !parser.is_done();
  head.expects_continue = absl::EqualsIgnoreCase(View(message[http::field::expect]), "100-continue");
  if (const auto length = parser.content_length(); length.has_value()) {
    head.content_length = static_cast<int64_t>(std::min<uint64_t>(*length, INT64_MAX));
  }
  head.content_type = std::string(message[http::field::content_type]);
  // Of several fields the parser has the first; together they are more than one coding.
  head.content_encoding = message.count(http::field::content_encoding) > 1
                              ? "several"
                              : std::string(message[http::field::content_encoding]);
  const absl::string_view kserve_length = View(message["Inference-Header-Content-Length"]);
  if (!kserve_length.empty() &&
      (!absl::SimpleAtoi(kserve_length, &head.kserve_header_length) || head.kserve_header_length < 0))
    head.kserve_header_length = INT64_MAX;  // more than any body has
  head.origin = std::string(message[http::field::origin]);
  head.requested_headers = std::string(message[http::field::access_control_request_headers]);
  head.authorization = std::string(message[http::field::authorization]);
  head.if_none_match = std::string(message[http::field::if_none_match]);
  head.request_id = ChooseRequestId(View(message["X-Request-Id"]));
  return head;
}

boost::system::error_code CheckFraming(const RequestParser& parser) {
  const auto& message = parser.get();
  const absl::string_view host = View(message[http::field::host]);
  const bool fit_host = std::all_of(host.begin(), host.end(), [](char c) {
    return absl::ascii_isgraph(c) && !absl::StrContains(",/\\?#@\"<>", c);
  });
  if (message.count(http::field::host) > 1 || !fit_host) return http::error::bad_field;
  const absl::string_view length = View(message[http::field::content_length]);
  const size_t num_lengths = message.count(http::field::content_length);
  // The parser takes "5, 5" and repetitions, which RFC 9110 (8.6) lets a server refuse.
  if (num_lengths > 1 || !std::all_of(length.begin(), length.end(), absl::ascii_isdigit))
    return http::error::bad_content_length;
  const size_t num_encodings = message.count(http::field::transfer_encoding);
  if (num_encodings == 0) return {};
  const absl::string_view encoding = View(message[http::field::transfer_encoding]);
  if (num_lengths > 0 || num_encodings > 1 || message.version() < 11)
    return http::error::bad_transfer_encoding;
  if (absl::EqualsIgnoreCase(encoding, "chunked")) return {};
  // Chunked last and once, after others: these are what is not known.
  const size_t comma = encoding.rfind(',');
  const bool others = comma != encoding.npos && encoding.find_first_not_of(", \t") < comma;
  if (parser.chunked() && others && absl::EndsWithIgnoreCase(encoding, "chunked"))
    return make_error_code(boost::system::errc::not_supported);
  return http::error::bad_transfer_encoding;
}

void SkipBlankLines(boost::beast::flat_buffer* buffer) {
  while (buffer->size() > 0) {
    const char c = *static_cast<const char*>(buffer->data().data());
    if (c != '\r' && c != '\n') return;
    buffer->consume(1);
  }
}

std::optional<Reply> ReplyToReadError(boost::system::error_code ec, bool timed_out, const Limits& limits) {
  if (timed_out) return ErrorReply(408, "request_timeout", "The request took too long to arrive.");
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    return ErrorReply(431, "headers_too_large",
                      absl::StrCat("The header is larger than ", limits.max_header_bytes, " bytes."));
  }
  if (ec == http::error::body_limit) {
    return ErrorReply(413, "request_too_large",
                      absl::StrCat("The body is larger than ", limits.max_body_bytes, " bytes."));
  }
  if (ec == boost::system::errc::not_supported)
    return ErrorReply(501, "not_implemented", "The only Transfer-Encoding that is taken is chunked.");
  const bool is_http = ec.category() == make_error_code(http::error::bad_method).category();
  if (!is_http || ec == http::error::end_of_stream || ec == http::error::partial_message) return std::nullopt;
  return ErrorReply(400, "bad_request", absl::StrCat("The request is not valid HTTP: ", ec.message(), "."));
}

}  // namespace sessa
