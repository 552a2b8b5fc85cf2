// Messages of sessa.v1 to core's request. Only what the message form itself can get wrong is an error here.
#pragma once

#include "absl/status/statusor.h"
#include "server/core/generation_request.h"
#include "sessa/v1/generation.pb.h"

namespace sessa {

// INVALID_ARGUMENT when no prompt is given.
absl::StatusOr<GenerationRequest> FromProto(const sessa::v1::GenerateRequest& message);
Chat FromProto(const sessa::v1::Chat& chat);

}  // namespace sessa
