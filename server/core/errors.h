// Errors of the API, the same for REST and gRPC: an absl::Status whose payloads say which field is wrong
// (`param`), a stable machine-readable `code`, and after how long a retry makes sense. Both front ends render
// them with Describe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sessa {

// INVALID_ARGUMENT: field `param` has a bad value.
absl::Status FieldError(absl::string_view param, absl::string_view message,
                        absl::string_view code = "invalid_value");
// INVALID_ARGUMENT, code context_length_exceeded.
absl::Status ContextLengthError(absl::string_view param, absl::string_view message);
// NOT_FOUND, code model_not_found.
absl::Status ModelNotFoundError(absl::string_view model);
// RESOURCE_EXHAUSTED, code rate_limit_exceeded: the tenant's own limit (REST 429), and when to come again.
absl::Status TenantLimitError(absl::string_view message, absl::Duration retry_after);
// UNAVAILABLE with a time to retry; code is "loading", "draining" or "unavailable".
absl::Status UnavailableError(absl::string_view message, absl::string_view code, absl::Duration retry_after);

// The same status with payloads set; empty strings leave that payload alone.
absl::Status Annotate(absl::Status status, absl::string_view param, absl::string_view code);

struct ErrorInfo {
  std::string message;
  std::string type;       // invalid_request_error, authentication_error, rate_limit_error, server_error, ...
  std::string param;      // empty: none
  std::string code;       // empty: none
  int http_status = 500;  // 400 401 404 413 429 499 500 503 504
  absl::Duration retry_after = absl::ZeroDuration();  // zero: do not say
};
// Requires: !status.ok().
ErrorInfo Describe(const absl::Status& status);

}  // namespace sessa
