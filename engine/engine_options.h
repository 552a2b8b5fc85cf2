#pragma once

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace sessa {

// The options with zeros replaced by their defaults on this machine. INVALID_ARGUMENT, naming the option.
absl::StatusOr<EngineOptions> CompleteOptions(EngineOptions options, const ModelConfig& config);

}  // namespace sessa
