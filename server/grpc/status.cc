// Errors on the wire; see status.h.
#include "server/grpc/status.h"

#include <string>

#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/core/errors.h"

namespace sessa {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorInfo info = Describe(status);
  absl::StatusCode code = status.code();
  if (code == absl::StatusCode::kOutOfRange) code = absl::StatusCode::kInvalidArgument;

  google::rpc::Status envelope;
  envelope.set_code(static_cast<int>(code));
  envelope.set_message(info.message);
  if (code == absl::StatusCode::kInvalidArgument) {
    google::rpc::BadRequest bad_request;
    auto* violation = bad_request.add_field_violations();
    violation->set_field(info.param);
    violation->set_description(info.message);
    envelope.add_details()->PackFrom(bad_request);
  }
  if (info.retry_after > absl::ZeroDuration()) {
    google::rpc::RetryInfo retry;
    const int64_t nanos = absl::ToInt64Nanoseconds(info.retry_after);
    retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
    envelope.add_details()->PackFrom(retry);
  }
  if (!info.code.empty()) {
    google::rpc::ErrorInfo reason;
    reason.set_reason(info.code);
    reason.set_domain("sessa");
    envelope.add_details()->PackFrom(reason);
  }
  // absl's and gRPC's codes are the same canonical numbers.
  return grpc::Status(static_cast<grpc::StatusCode>(code), info.message, envelope.SerializeAsString());
}

}  // namespace sessa
