// absl::Status of server/core as grpc::Status with google.rpc details: BadRequest for a named field,
// RetryInfo where a retry makes sense, ErrorInfo with the same code that REST sends.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace sessa {

// OK becomes OK. OUT_OF_RANGE (context length) becomes INVALID_ARGUMENT, as REST's 400.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace sessa
