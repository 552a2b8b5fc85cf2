// From Beast's parser to RequestHead, and from its errors to replies.
#pragma once

#include <optional>

#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/string_body.hpp"
#include "server/core/limits.h"
#include "server/rest/http_message.h"

namespace sessa {

using RequestParser = boost::beast::http::request_parser<boost::beast::http::string_body>;

// Requires: the header is parsed.
RequestHead HeadOf(const RequestParser& parser);

// Whether the message says in one way only where it ends, so that no proxy in front can read it differently
// and what follows it is the next request for both (RFC 9112, 6.3 and 11.2). Stricter than the parser: one
// Transfer-Encoding that is `chunked` and HTTP/1.1, or one Content-Length of digits, or none; one Host at
// most, which could be one. not_supported: a coding under chunked that is not known here (501); else an error
// of HTTP's (400). Both end the connection, as nobody can tell where the next request begins. Requires: the
// header is parsed.
boost::system::error_code CheckFraming(const RequestParser& parser);

// What RFC 9112 asks to skip before a request.
void SkipBlankLines(boost::beast::flat_buffer* buffer);

// None when the client left, so that nobody would read it.
std::optional<Reply> ReplyToReadError(boost::system::error_code ec, bool timed_out, const Limits& limits);

}  // namespace sessa
