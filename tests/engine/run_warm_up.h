#pragma once

#include "engine/warm_up.h"

namespace sessa {

// All steps that a second has time for.
inline absl::Status RunWarmUp(const SchedulerOptions& options, const StateSize& state, StepRunner run,
                              CostModel* model) {
  WarmUp warm_up(options, state, absl::Seconds(1));
  while (true) {
    const absl::StatusOr<bool> ran = warm_up.Next(run, model);
    if (!ran.ok() || !*ran) return ran.status();
  }
}

}  // namespace sessa
