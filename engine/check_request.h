// Judges a request by what the model can take; what the state cache can hold is the Scheduler's (CheckFits).
#pragma once

#include "absl/status/status.h"
#include "engine/config.h"
#include "engine/request.h"

namespace sessa {

inline constexpr int kMaxChoices = 128;  // n of one request
// Why some models take no drafts.
inline constexpr char kNoWayBack[] =
    "the model keeps recurrent state, which cannot go back to before a wrong guess";

// INVALID_ARGUMENT, naming the field.
absl::Status CheckRequest(const Request& request, const ModelConfig& config);

}  // namespace sessa
