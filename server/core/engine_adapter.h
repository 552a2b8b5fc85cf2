// The real Engine behind the TokenEngine interface. Owns the engine.
#pragma once

#include <memory>
#include <utility>

#include "server/core/token_engine.h"

namespace sessa {

class EngineAdapter final : public TokenEngine {
 public:
  explicit EngineAdapter(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}

  absl::StatusOr<RequestId> Submit(Request request) override { return engine_->Submit(std::move(request)); }
  absl::Status CheckQueue(const Arrival& arrival) const override { return engine_->CheckQueue(arrival); }
  void Cancel(RequestId id) override { engine_->Cancel(id); }
  void StopChoice(RequestId id, int choice) override { engine_->StopChoice(id, choice); }
  bool Drain(absl::Time deadline) override { return engine_->Drain(deadline); }
  EngineStats Stats() const override { return engine_->Stats(); }
  const ModelConfig& config() const override { return engine_->config(); }
  const EngineOptions& options() const override { return engine_->options(); }

 private:
  std::unique_ptr<Engine> engine_;
};

}  // namespace sessa
