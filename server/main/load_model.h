// From a checkpoint folder to a served model: config, tokenizer, weights, engine. Says on stderr what it is
// doing.
#pragma once

#include "absl/status/statusor.h"
#include "server/core/metrics.h"
#include "server/core/service.h"
#include "server/main/options.h"

namespace sessa {

// Blocks until the engine is warm. Errors name the file or option. `metrics` outlives the engine.
absl::StatusOr<ServedModel> LoadModel(const MainOptions& options, Metrics* metrics);

}  // namespace sessa
