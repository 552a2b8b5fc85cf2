// Messages of sessa.v1 to core's request. Only what the message form itself can get wrong is an error here.
#pragma once

#include "absl/status/statusor.h"
#include "server/core/generation_request.h"
#include "server/core/limits.h"
#include "sessa/v1/generation.pb.h"

namespace sessa {

// INVALID_ARGUMENT when no prompt is given, or a text that is to be JSON is none.
absl::StatusOr<GenerationRequest> FromProto(const sessa::v1::GenerateRequest& message, const Limits& limits);
// The errors of a chat are REST's, by the same names.
absl::StatusOr<Chat> FromProto(const sessa::v1::Chat& chat, const Limits& limits);

}  // namespace sessa
