// See group_engine.h.
#include <utility>

#include "engine/engine_options.h"
#include "engine/group_engine.h"
#include "engine/worker.h"
#include "kernels/slices.h"

namespace sessa {

absl::Status ServeRank(const EngineOptions& options, std::shared_ptr<RankGroup> group,
                       const ModelConfig& config, const WeightSource& weights,
                       const std::function<void()>& on_ready) {
  if (absl::Status valid = config.Validate(); !valid.ok()) return valid;
  const absl::StatusOr<EngineOptions> complete = CompleteOptions(options, config, /*own_process=*/true);
  if (!complete.ok()) return complete.status();
  const auto workers = Workers::Create(*complete, /*limits=*/{}, config, weights, std::move(group));
  if (!workers.ok()) return workers.status();
  on_ready();
  AskForSlices(kEngineSlice);
  return (*workers)->Obey();
}

}  // namespace sessa
