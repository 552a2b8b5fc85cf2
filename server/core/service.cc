// The life of the core: its parts, its state and its health; see service.h.
#include "server/core/service.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"

namespace sessa {

uint64_t Service::RandomSeed() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return generator() >> 11;
}

Service::Service(ServiceOptions options)
    : options_(std::move(options)),
      metrics_(options_.model_name, options_.version),
      tenants_(options_.api_keys, options_.limits.max_requests_per_tenant, options_.tenant_clock),
      byte_budget_(options_.limits.max_buffered_bytes),
      text_pool_(options_.num_text_threads, static_cast<size_t>(options_.limits.max_waiting_text_bytes)),
      watchdog_(std::min(options_.watchdog / 4, absl::Seconds(1)), [this] {
        auto served = model();
        return served == nullptr ? absl::OkStatus() : CheckLoop(served->engine->Stats());
      }) {
  metrics_.SetByteBudget(&byte_budget_);
}

Service::~Service() = default;

void Service::SetModel(ServedModel model) {
  model.answer_bound = std::make_shared<const AnswerBound>(
      model.tokenizer.get(), model.engine->config().vocab_size, options_.limits.max_logprobs);
  absl::MutexLock lock(&mutex_);
  model_ = std::make_shared<const ServedModel>(std::move(model));
}

void Service::BeginSettle() {
  absl::MutexLock lock(&mutex_);
  settling_ = true;
}

void Service::BeginDrain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

bool Service::Drain(absl::Time deadline) {
  BeginDrain();
  auto served = model();
  if (served == nullptr || served->engine->Drain(deadline)) return true;
  watchdog_.FailAll(absl::UnavailableError("the server is shutting down"));
  return false;
}

std::shared_ptr<const ServedModel> Service::model() const {
  absl::MutexLock lock(&mutex_);
  return model_;
}

ServiceState Service::state() const {
  absl::MutexLock lock(&mutex_);
  if (draining_) return ServiceState::kDraining;
  if (model_ == nullptr) return ServiceState::kLoading;
  return settling_ ? ServiceState::kSettling : ServiceState::kReady;
}

absl::Status Service::EngineHealth(const ServedModel& served) const {
  const EngineStats stats = served.engine->Stats();
  return stats.health.ok() ? CheckLoop(stats) : stats.health;
}

absl::Status Service::CheckLoop(const EngineStats& stats) const {
  // An idle engine sleeps in its inbox; only one with work must show a beat.
  const absl::Duration silence = MonotonicNow() - stats.heartbeat;
  if (stats.num_running + stats.num_waiting == 0 || silence <= options_.watchdog) return absl::OkStatus();
  return UnavailableError(
      absl::StrCat("the engine's loop has not turned for ", absl::FormatDuration(silence)), "unavailable",
      options_.retry_after);
}

bool Service::Live() const {
  auto served = model();
  return listening_ && (served == nullptr || EngineHealth(*served).ok());
}

absl::Status Service::CheckState(bool settling_is_fine) const {
  const ServiceState now = state();
  if (now == ServiceState::kLoading) {
    return UnavailableError("The model is still loading.", "loading", options_.retry_after);
  }
  if (now == ServiceState::kDraining || (now == ServiceState::kSettling && !settling_is_fine)) {
    return UnavailableError("The server is shutting down.", "draining", options_.retry_after);
  }
  absl::Status health = EngineHealth(*model());
  if (!health.ok()) {
    return UnavailableError(absl::StrCat("The engine has failed: ", health.message()), "unavailable",
                            options_.retry_after);
  }
  return absl::OkStatus();
}

absl::Status Service::Readiness() const { return CheckState(/*settling_is_fine=*/false); }

bool Service::Ending() const {
  const ServiceState now = state();
  return now == ServiceState::kSettling || now == ServiceState::kDraining;
}

bool Service::Ready() const { return Readiness().ok(); }
bool Service::Started() const { return model() != nullptr; }

absl::StatusOr<std::shared_ptr<const ServedModel>> Service::FindModel(absl::string_view name) const {
  auto served = model();
  if (served == nullptr)
    return UnavailableError("The model is still loading.", "loading", options_.retry_after);
  if (!name.empty() && name != served->name) return ModelNotFoundError(name);
  return served;
}

std::string Service::RenderMetrics() {
  auto served = model();
  if (served == nullptr) return metrics_.Render(nullptr, Live(), false, tenants_.Use());
  const EngineStats stats = served->engine->Stats();
  return metrics_.Render(&stats, Live(), Ready(), tenants_.Use());
}

}  // namespace sessa
