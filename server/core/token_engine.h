// What the server needs of an engine, so that tests can script the tokens. EngineAdapter (engine_adapter.h)
// is the real one. All methods are thread-safe; contracts as in engine/engine.h.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/config.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace sessa {

class TokenEngine {
 public:
  virtual ~TokenEngine() = default;
  virtual absl::StatusOr<RequestId> Submit(Request request) = 0;
  virtual absl::Status CheckQueue(const Arrival& arrival) const = 0;
  virtual void Cancel(RequestId id) = 0;
  virtual void StopChoice(RequestId id, int choice) = 0;
  virtual bool Drain(absl::Time deadline) = 0;
  virtual EngineStats Stats() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual const EngineOptions& options() const = 0;  // max_model_len is filled in
};

}  // namespace sessa
