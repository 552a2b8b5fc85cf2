#pragma once

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace sessa {

// The options with zeros replaced by their defaults on this machine, but for state_cache_bytes, which Workers knows once the
// weights are loaded. INVALID_ARGUMENT, naming the option.
absl::StatusOr<EngineOptions> CompleteOptions(EngineOptions options, const ModelConfig& config);

}  // namespace sessa
