// What is refused before a body is read, or before it is parsed; see handlers.h.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/rest/handlers.h"
#include "server/rest/rate_limit_headers.h"

namespace sessa {
namespace {

bool IsJson(const std::string& content_type) {
  const std::string type(absl::StripAsciiWhitespace(content_type.substr(0, content_type.find(';'))));
  return absl::EqualsIgnoreCase(type, "application/json");
}

// Triton's clients say nothing, or that bytes follow the JSON.
bool IsKserveType(const std::string& content_type) {
  return content_type.empty() || absl::StartsWithIgnoreCase(content_type, "application/octet-stream");
}

}  // namespace

std::optional<Reply> Handlers::Judge(Exchange* x) const {
  const RequestHead& head = x->head;
  x->head.reply_headers = cors_.ForReply(head.origin);
  if (scope_ == Scope::kSpare) x->head.keep_alive = false;
  std::optional<Route> route = FindRoute(head.path);
  if (head.method == "OPTIONS" && head.path == "*") route.emplace();
  if (!route.has_value() || (scope_ == Scope::kAdmin && !route->is_probe()))
    return ErrorReply(404, "not_found", absl::StrCat("There is nothing at '", head.path, "'."));
  x->route = *std::move(route);
  if (head.method == "OPTIONS") return Options(*x);
  const bool is_post = head.method == "POST", is_get = head.method == "GET" || head.method == "HEAD";
  if (x->route.is_post ? !is_post : !is_get && !(is_post && x->route.also_post)) {
    Reply reply =
        ErrorReply(405, "method_not_allowed",
                   absl::StrCat("'", head.path, "' takes ", x->route.is_post ? "POST" : "GET", " only."));
    reply.headers.emplace_back("Allow", x->route.methods());
    return reply;
  }
  if (x->route.generates) x->ticket = service_->Begin(x->route.is_kserve() ? "kserve" : "rest");
  if (scope_ == Scope::kSpare && !x->route.is_probe()) {
    return Refuse(x, absl::ResourceExhaustedError("the server has too many connections"));
  }
  if (!x->route.is_open) {
    absl::StatusOr<std::string> tenant = service_->Authenticate(head.authorization);
    if (!tenant.ok()) return Refuse(x, tenant.status());
    x->tenant = *std::move(tenant);
  }
  std::optional<Reply> refused = JudgeWork(x);
  if (refused.has_value() && x->route.is_post)
    AddRateLimits(service_->tenants().Remaining(x->tenant), &refused->headers);
  return refused;
}

void Handlers::SpeakAs(const RequestHead& head, Reply* reply) {
  if (reply->error.has_value() && IsKservePath(head.path))
    reply->body = absl::Cord(KserveErrorJson(*reply->error));
}

// What a path takes; for a browser that asks whether its page may, also that.
Reply Handlers::Options(const Exchange& x) const {
  const std::string methods = x.head.path == "*" ? "GET, HEAD, POST" : x.route.methods();
  Reply reply;
  reply.status = 204;
  reply.headers = cors_.ForPreflight(x.head.origin, x.head.requested_headers, methods);
  reply.headers.emplace_back("Allow", methods + ", OPTIONS");
  return reply;
}

std::optional<Reply> Handlers::JudgeWork(Exchange* x) const {
  if (x->route.is_post) {  // what works with text; to look at models and limits is free
    if (absl::Status taken = service_->tenants().TakeRequest(x->tenant); !taken.ok()) return Refuse(x, taken);
  }
  std::optional<Reply> refused = JudgeBody(x);
  if (refused.has_value()) {
    x->ticket.Finish(Outcome::kInvalid, refused->status);
  } else if (x->route.generates && x->head.content_length > static_cast<int64_t>(TextPool::kLongBytes)) {
    // With the queue full a long body is not even read; a short one has come with its head, most likely, and
    // its connection can be kept.
    if (absl::Status room = service_->CheckQueue(x->tenant); !room.ok()) return Refuse(x, room);
  }
  return refused;
}

std::optional<Reply> Handlers::JudgeBody(Exchange* x) const {
  const RequestHead& head = x->head;
  std::optional<Reply> refused;
  const std::optional<ContentCoding> coding = ParseContentCoding(head.content_encoding);
  if (head.version >= 11 && !head.has_host) {
    refused = ErrorReply(400, "bad_request", "The Host header is missing.");
  } else if (x->route.is_post && !IsJson(head.content_type) &&
             !(x->route.is_kserve() && IsKserveType(head.content_type))) {
    refused = ErrorReply(415, "unsupported_media_type", "Send 'Content-Type: application/json'.");
  } else if (head.has_body && !coding.has_value()) {
    refused = ErrorReply(415, "unsupported_content_encoding",
                         "The only Content-Encodings that are taken are gzip and zstd.");
    refused->headers.emplace_back("Accept-Encoding", "gzip, zstd");  // RFC 9110, 15.5.16
  } else if (head.content_length > service_->limits().max_body_bytes) {
    refused = ErrorReply(413, "request_too_large",
                         absl::StrCat("The body has ", head.content_length, " bytes, at most ",
                                      service_->limits().max_body_bytes, " are taken."));
  }
  x->coding = coding.value_or(ContentCoding::kIdentity);
  return refused;
}

std::optional<Reply> Handlers::Decode(Exchange* x, const std::string& body, ByteBudget::Lease* lease,
                                      std::string* decoded) const {
  if (x->route.generates) {
    if (absl::Status room = service_->CheckQueue(x->tenant); !room.ok()) return Refuse(x, room);
  }
  const auto charge = [lease](int64_t bytes) { return lease->Resize(bytes); };
  Reply refused;
  switch (DecodeBody(x->coding, body, limits().max_body_bytes, charge, decoded)) {
    case DecodeResult::kDone: return std::nullopt;
    case DecodeResult::kNoRoom: return OutOfBytes(x);
    case DecodeResult::kMalformed:
      refused =
          ErrorReply(400, "invalid_content_encoding", "The body is not what its Content-Encoding says.");
      break;
    case DecodeResult::kTooLarge:
      refused =
          ErrorReply(413, "request_too_large",
                     absl::StrCat("Decoded, the body is larger than ", limits().max_body_bytes, " bytes."));
  }
  x->ticket.Finish(Outcome::kInvalid, refused.status);
  return refused;
}

}  // namespace sessa
