// From a checkpoint folder to a served model: config, tokenizer, weights, engine. Says on stderr what it is
// doing.
#pragma once

#include "absl/status/statusor.h"
#include "server/checkpoint/checkpoint.h"
#include "server/core/metrics.h"
#include "server/core/service.h"
#include "server/group/process_group.h"
#include "server/main/options.h"

namespace sessa {

// Blocks until the engine is warm, and of a group until all its ranks are there. Errors name the file or
// option. `metrics` outlives the engine.
absl::StatusOr<ServedModel> LoadModel(const MainOptions& options, Metrics* metrics, GroupEvents events);

// The engine's options with the formats that the user left open, by the checkpoint.
EngineOptions WithFormats(const MainOptions& options, const Checkpoint& checkpoint);

}  // namespace sessa
