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

// What RFC 9112 asks to skip before a request.
void SkipBlankLines(boost::beast::flat_buffer* buffer);

// None when the client left, so that nobody would read it.
std::optional<Reply> ReplyToReadError(boost::system::error_code ec, bool timed_out, const Limits& limits);

}  // namespace sessa
