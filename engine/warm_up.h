// The first steps of an engine, before any request: the first request finds code and memory warm, and the
// CostModel knows what steps cost here. Called once by Engine::Create, before the engine thread starts.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/cost_model.h"
#include "engine/scheduler.h"

namespace sessa {

// Executes a plan and says how long it took.
using StepRunner = absl::FunctionRef<absl::StatusOr<absl::Duration>(const StepPlan&)>;

// Runs decodes of growing batches and chunks at growing positions, whatever of them the options allow, and
// shows them to the model; twice while there is time. A step that by the model's own prediction would end
// after `budget`, counted in the time that `run` reports, is left out: a slow machine starts with less
// knowledge rather than later. Nothing that the steps write is read by a later request. The errors of `run`.
absl::Status WarmUp(const SchedulerOptions& options, const StateSize& state, absl::Duration budget,
                    StepRunner run, CostModel* model);

}  // namespace sessa
