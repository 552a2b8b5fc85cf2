// config.json of a checkpoint as a ModelConfig. INVALID_ARGUMENT names the key that is missing, of a wrong
// type or out of range; a config that is returned has passed Validate.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/config.h"

namespace sessa {

absl::StatusOr<ModelConfig> ParseConfigJson(absl::string_view text);

}  // namespace sessa
