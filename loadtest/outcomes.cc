// See outcomes.h.
#include "loadtest/outcomes.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "grpcpp/support/status_code_enum.h"

namespace sessa::loadtest {

Outcome OutcomeOfHttpStatus(int status) {
  switch (status) {
    case 429: return Outcome::kRateLimited;
    case 503: return Outcome::kUnavailable;
    case 408:
    case 504: return Outcome::kDeadline;
    default: break;
  }
  if (status >= 400 && status < 500) return Outcome::kClientError;
  return status >= 500 && status < 600 ? Outcome::kServerError : Outcome::kProtocol;
}

Outcome OutcomeOfGrpcStatus(int code, bool answered) {
  switch (code) {
    case grpc::RESOURCE_EXHAUSTED: return Outcome::kRateLimited;
    case grpc::UNAVAILABLE: return answered ? Outcome::kBroken : Outcome::kUnavailable;
    case grpc::DEADLINE_EXCEEDED: return Outcome::kDeadline;
    case grpc::INVALID_ARGUMENT:
    case grpc::NOT_FOUND:
    case grpc::ALREADY_EXISTS:
    case grpc::PERMISSION_DENIED:
    case grpc::UNAUTHENTICATED:
    case grpc::FAILED_PRECONDITION:
    case grpc::OUT_OF_RANGE:
    case grpc::UNIMPLEMENTED: return Outcome::kClientError;
    case grpc::CANCELLED:  // not by us: the server or a proxy gave it up
      return Outcome::kBroken;
    default: return Outcome::kServerError;
  }
}

Outcome OutcomeOfStreamError(const std::string& code, const std::string& type) {
  int status = 0;
  if (absl::SimpleAtoi(code, &status) && status >= 400 && status < 600) return OutcomeOfHttpStatus(status);
  if (absl::StrContains(code, "rate_limit") || absl::StrContains(type, "rate_limit"))
    return Outcome::kRateLimited;
  if (absl::StrContains(code, "deadline") || absl::StrContains(type, "timeout")) return Outcome::kDeadline;
  if (absl::StrContains(type, "unavailable") || absl::StrContains(type, "overloaded"))
    return Outcome::kUnavailable;
  return Outcome::kServerError;
}

void SpreadTokens(int total, std::vector<TokenEvent>* events) {
  const auto count = static_cast<int64_t>(events->size());
  int64_t given = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t upto = (i + 1) * total / count;
    (*events)[i].num_tokens = static_cast<int>(upto - given);
    given = upto;
  }
}

}  // namespace sessa::loadtest
