// The first steps of an engine, before any request: the first request finds code and memory warm, and the
// CostModel knows what steps cost here.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/cost_model.h"
#include "engine/scheduler.h"

namespace sessa {

// Executes a plan and says how long it took.
using StepRunner = absl::FunctionRef<absl::StatusOr<absl::Duration>(const StepPlan&)>;

// Decodes of growing batches and chunks at growing positions, whatever of them the options allow, shown to
// the model; twice while there is time. Nothing that the steps write is read by a later request, but they
// write where the first requests will: none may run once a request has come.
class WarmUp {
 public:
  // A step that by the model's own prediction would end after `budget`, counted in the time that steps take,
  // is left out: a slow machine knows less.
  WarmUp(const SchedulerOptions& options, const StateSize& state, absl::Duration budget)
      : options_(options), state_(state), budget_(budget) {}

  // Runs the next step; false when there is none. The errors of `run`.
  absl::StatusOr<bool> Next(StepRunner run, CostModel* model);
  absl::Duration spent() const { return spent_; }

 private:
  const SchedulerOptions options_;
  const StateSize state_;
  const absl::Duration budget_;
  int next_ = 0;  // of the shapes, counted on in the second round
  absl::Duration spent_;
};

}  // namespace sessa
