// One HTTP request's head and one whole reply, apart from sockets; and how replies become bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "server/core/byte_budget.h"
#include "server/core/errors.h"

namespace sessa {

struct RequestHead {
  std::string method;  // "GET"
  std::string path;    // percent-decoded, without the query
  int version = 11;    // 10 or 11
  bool keep_alive = false;
  bool has_host = false;
  bool has_body = false;  // there is one still to be read
  bool expects_continue = false;
  int64_t content_length = -1;  // -1: not said
  std::string content_type, content_encoding, authorization, if_none_match;
  int64_t kserve_header_length = -1;      // Inference-Header-Content-Length; -1: none
  std::string origin, requested_headers;  // of a browser's page; and what its preflight asks to send
  std::string request_id;                 // the client's when it is a fit one, else made here
  std::vector<std::pair<std::string, std::string>> reply_headers;  // that every reply to it carries
};

struct Reply {
  int status = 200;
  std::optional<ErrorInfo> error = {};  // what the body says
  std::string content_type = "application/json";
  absl::Cord body;
  ByteBudget::Lease lease;                                   // for the body
  std::vector<std::pair<std::string, std::string>> headers;  // values without line breaks
  bool close = false;                                        // the connection cannot go on after it
  std::string error_code, reason;                            // of an error, for the access log
};

// {"error": {...}} with Retry-After and WWW-Authenticate where they belong.
Reply JsonReply(std::string body);  // 200
Reply ErrorReply(const ErrorInfo& error);
Reply ErrorReply(const absl::Status& error);
// An error that has no absl::Status: 404, 405, 408, 413, 415, 431.
Reply ErrorReply(int status, const std::string& code, const std::string& message);
std::string ErrorJson(const ErrorInfo& error);
// {"error": "..."}, KServe's.
std::string KserveErrorJson(const ErrorInfo& error);

// Status line and headers, with the empty line. `streamed`: no length is known; chunked unless HTTP/1.0.
std::string SerializeHead(const Reply& reply, const RequestHead& head, bool keep_alive, bool streamed);

// A piece of a streamed body: a chunk, or as it is for HTTP/1.0. Requires: not empty.
std::string StreamPiece(const std::string& data, const RequestHead& head);

// False when `text` holds a broken escape; '+' is left alone.
bool PercentDecode(absl::string_view text, std::string* out);

// The client's X-Request-Id when it has 1 to 128 visible ASCII characters, else a new one.
std::string ChooseRequestId(absl::string_view from_client);

// A header value that lists field names: other characters than those of names become '?', at most 512 bytes.
std::string IgnoredFieldsHeader(const std::vector<std::string>& names);

}  // namespace sessa
