// Errors as Status payloads; see errors.h.
#include "server/core/errors.h"

#include <cstdint>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/admission.h"

namespace sessa {
namespace {

constexpr char kParam[] = "sessa/param";
constexpr char kCode[] = "sessa/code";
constexpr auto& kRetryMs = kRetryAfterMsPayload;  // the engine sets it too

std::string Payload(const absl::Status& status, const char* url) {
  auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status Annotate(absl::Status status, absl::string_view param, absl::string_view code) {
  if (!param.empty()) status.SetPayload(kParam, absl::Cord(param));
  if (!code.empty()) status.SetPayload(kCode, absl::Cord(code));
  return status;
}

absl::Status FieldError(absl::string_view param, absl::string_view message, absl::string_view code) {
  return Annotate(absl::InvalidArgumentError(absl::StrCat(param, ": ", message)), param, code);
}

absl::Status ContextLengthError(absl::string_view param, absl::string_view message) {
  return Annotate(absl::InvalidArgumentError(message), param, "context_length_exceeded");
}

absl::Status ModelNotFoundError(absl::string_view model) {
  return Annotate(absl::NotFoundError(absl::StrCat("The model '", model, "' does not exist.")), "model",
                  "model_not_found");
}

absl::Status TenantLimitError(absl::string_view message, absl::Duration retry_after) {
  absl::Status status = Annotate(absl::ResourceExhaustedError(message), "", "rate_limit_exceeded");
  // Up, so that nobody comes too early, but for what rounding has added.
  const absl::Duration whole = absl::Ceil(retry_after - absl::Microseconds(1), absl::Milliseconds(1));
  status.SetPayload(kRetryMs, absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(whole))));
  return status;
}

absl::Status UnavailableError(absl::string_view message, absl::string_view code, absl::Duration retry_after) {
  absl::Status status = Annotate(absl::UnavailableError(message), "", code);
  status.SetPayload(kRetryMs, absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(retry_after))));
  return status;
}

ErrorInfo Describe(const absl::Status& status) {
  ErrorInfo info;
  info.message = std::string(status.message());
  info.param = Payload(status, kParam);
  info.code = Payload(status, kCode);
  int64_t retry_ms = 0;
  if (absl::SimpleAtoi(Payload(status, kRetryMs), &retry_ms)) info.retry_after = absl::Milliseconds(retry_ms);
  info.type = "server_error";
  auto fill = [&info](int http, const char* type, const char* code) {
    info.http_status = http;
    info.type = type;
    if (info.code.empty()) info.code = code;
  };
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument: fill(400, "invalid_request_error", "invalid_value"); break;
    case absl::StatusCode::kOutOfRange: fill(400, "invalid_request_error", "context_length_exceeded"); break;
    case absl::StatusCode::kUnauthenticated: fill(401, "authentication_error", "invalid_api_key"); break;
    case absl::StatusCode::kPermissionDenied: fill(403, "permission_error", "permission_denied"); break;
    case absl::StatusCode::kNotFound: fill(404, "invalid_request_error", "not_found"); break;
    case absl::StatusCode::kResourceExhausted:
      if (info.code == "rate_limit_exceeded") {
        fill(429, "rate_limit_error", "");
      } else {
        fill(503, "overloaded_error", "overloaded");  // the queue is full: anyone's request would be refused
      }
      break;
    case absl::StatusCode::kCancelled: fill(499, "cancelled_error", "cancelled"); break;
    case absl::StatusCode::kDeadlineExceeded: fill(504, "timeout_error", "deadline_exceeded"); break;
    case absl::StatusCode::kUnavailable: fill(503, "unavailable_error", "unavailable"); break;
    case absl::StatusCode::kUnimplemented: fill(501, "invalid_request_error", "unimplemented"); break;
    default: fill(500, "server_error", "internal_error"); break;
  }
  if ((info.http_status == 503 || info.http_status == 429) && info.retry_after <= absl::ZeroDuration()) {
    info.retry_after = absl::Seconds(1);
  }
  return info;
}

}  // namespace sessa
