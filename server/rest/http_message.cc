// See http_message.h.
#include "server/rest/http_message.h"

#include <algorithm>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/core/json_writer.h"

namespace sessa {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxNameBytes = 64, kMaxNamesBytes = 512;

const char* Reason(int status) {
  switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Payload Too Large";
    case 415: return "Unsupported Media Type";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return "Status";
  }
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string ErrorJson(const ErrorInfo& error) {
  std::string out;
  JsonWriter json(&out);
  auto optional = [&json](const char* key, const std::string& value) {
    json.Key(key);
    value.empty() ? json.Null() : json.String(value);
  };
  json.BeginObject().Key("error").BeginObject();
  json.Key("message").String(error.message).Key("type").String(error.type);
  optional("param", error.param);
  optional("code", error.code);
  json.EndObject().EndObject();
  return out;
}

Reply JsonReply(std::string body) {
  Reply reply;
  reply.body = absl::Cord(std::move(body));
  return reply;
}

std::string KserveErrorJson(const ErrorInfo& error) {
  std::string out;
  JsonWriter(&out).BeginObject().Key("error").String(error.message).EndObject();
  return out;
}

Reply ErrorReply(const ErrorInfo& error) {
  Reply reply;
  reply.error = error;
  reply.status = error.http_status;
  reply.body = ErrorJson(error);
  reply.error_code = error.code;
  reply.reason = error.message;
  if (error.retry_after > absl::ZeroDuration()) {
    const int64_t seconds =
        std::max<int64_t>(1, absl::ToInt64Seconds(absl::Ceil(error.retry_after, absl::Seconds(1))));
    reply.headers.emplace_back("Retry-After", absl::StrCat(seconds));
  }
  if (error.http_status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

Reply ErrorReply(const absl::Status& error) { return ErrorReply(Describe(error)); }

Reply ErrorReply(int status, const std::string& code, const std::string& message) {
  ErrorInfo error;
  error.http_status = status;
  error.message = message;
  error.type = status >= 500 ? "server_error" : "invalid_request_error";
  error.code = code;
  return ErrorReply(error);
}

std::string SerializeHead(const Reply& reply, const RequestHead& head, bool keep_alive, bool streamed) {
  std::string out = absl::StrCat("HTTP/1.1 ", reply.status, " ", Reason(reply.status),
                                 "\r\nServer: sessa\r\nContent-Type: ", reply.content_type, "\r\n");
  if (!head.request_id.empty()) absl::StrAppend(&out, "X-Request-Id: ", head.request_id, "\r\n");
  for (const auto* headers : {&reply.headers, &head.reply_headers}) {
    for (const auto& [name, value] : *headers) absl::StrAppend(&out, name, ": ", value, "\r\n");
  }
  if (reply.status == 304 || reply.status == 204) {
    // They never have a body, and the length of the one that a 304 spares is not 0.
  } else if (!streamed) {
    absl::StrAppend(&out, "Content-Length: ", reply.body.size(), "\r\n");
  } else if (head.version >= 11) {
    absl::StrAppend(&out, "Transfer-Encoding: chunked\r\n");
  }
  absl::StrAppend(&out, "Connection: ", keep_alive ? "keep-alive" : "close", "\r\n\r\n");
  return out;
}

std::string StreamPiece(const std::string& data, const RequestHead& head) {
  return head.version < 11 ? data : absl::StrCat(absl::Hex(data.size()), "\r\n", data, "\r\n");
}

bool PercentDecode(absl::string_view text, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out->push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out->push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return true;
}

std::string ChooseRequestId(absl::string_view from_client) {
  const bool fit =
      !from_client.empty() && from_client.size() <= kMaxRequestIdBytes &&
      std::all_of(from_client.begin(), from_client.end(), [](char c) { return absl::ascii_isgraph(c); });
  if (fit) return std::string(from_client);
  thread_local absl::BitGen random;
  return absl::StrFormat("%016x%016x", absl::Uniform<uint64_t>(random), absl::Uniform<uint64_t>(random));
}

std::string IgnoredFieldsHeader(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) {
    std::string safe = name.substr(0, kMaxNameBytes);
    for (char& c : safe) {
      if (!absl::ascii_isalnum(c) && c != '_' && c != '-' && c != '.' && c != '[' && c != ']') c = '?';
    }
    if (safe.empty()) safe = "?";
    if (out.size() + safe.size() + 7 > kMaxNamesBytes) return out + ", ...";
    absl::StrAppend(&out, out.empty() ? "" : ", ", safe);
  }
  return out;
}

}  // namespace sessa
