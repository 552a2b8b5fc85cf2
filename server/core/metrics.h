// The server's metrics, through prometheus-cpp; docs/metrics.md lists them all. Thread-safe. What the engine
// counts itself is read from EngineStats at each scrape (engine_metrics.h), so that it is one consistent
// snapshot; here is what is counted as it happens. Every sessa_ series carries the label model_name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/core/byte_budget.h"
#include "server/core/tenants.h"
#include "server/net/connection_stats.h"

namespace prometheus {
struct MetricFamily;
}

namespace sessa {

// How a request ended. requests_total{outcome} summed over these is the number of requests received and
// ended.
enum class Outcome {
  kStop,
  kLength,
  kCancelled,
  kSlowReader,
  kDeadline,
  kRejected,
  kInvalid,
  kUnauthenticated,
  kNotFound,
  kUnavailable,
  kError,
};
absl::string_view OutcomeName(Outcome outcome);

// What was asked of one engine request and what its choices came to: RequestEnd does not say.
struct RequestShape {
  int n = 1, max_tokens = 0;
  int longest_choice = 0;  // generated tokens
};

// What the engine's requests that have ended took, in all.
struct RequestTimes {
  struct Sum {
    int64_t count = 0;
    double seconds = 0;
  };
  Sum e2e, queue, prefill, decode;
};

class Metrics {
 public:
  // `model_name` is UTF-8 and known before the model is loaded, so that no series changes its labels.
  Metrics(std::string model_name, std::string version);
  ~Metrics();

  void OnReceived(absl::string_view protocol);  // "rest", "grpc", "kserve"
  // `http_status`: what the client is told, or over gRPC what the same answer would be over REST.
  void OnOutcome(absl::string_view protocol, Outcome outcome, int http_status);
  void OnPrompt(const PromptInfo& prompt);
  void OnInterToken(absl::Duration gap);
  // Times of one engine request; those that it did not come to are InfinitePast and are left out.
  void OnEnd(const RequestEnd& end, const RequestShape& shape);
  void OnStep(const StepObservation& step);
  void OnCacheEventsDropped(int64_t num);
  // Matches Engine::StepObserver; context is a Metrics*.
  static void StepObserver(void* context, const StepObservation& step);

  ConnectionStats& connections() { return connections_; }
  // `budget` outlives this.
  void SetByteBudget(const ByteBudget* budget) { byte_budget_ = budget; }

  int64_t received() const;
  int64_t ended() const;  // sum over outcomes
  int64_t outcome(Outcome outcome) const;
  RequestTimes times() const;

  // The Prometheus text format, version 0.0.4; `stats` null while no engine is there.
  std::string Render(const EngineStats* stats, bool live, bool ready,
                     const std::vector<TenantUse>& tenants = {});

 private:
  struct Families;
  prometheus::MetricFamily SuccessFamily() const;

  std::unique_ptr<Families> families_;
  ConnectionStats connections_;
  const ByteBudget* byte_budget_ = nullptr;
};

// One received request. Exactly one outcome and one status are counted: of the first Finish, or kError when
// dropped without.
class RequestTicket {
 public:
  RequestTicket() = default;
  RequestTicket(Metrics* metrics, absl::string_view protocol);  // a string literal
  RequestTicket(RequestTicket&& other) noexcept;
  RequestTicket& operator=(RequestTicket&& other) noexcept;
  ~RequestTicket();

  void Finish(Outcome outcome);
  void Finish(Outcome outcome, int http_status);
  // The outcome that fits an error.
  void Finish(const absl::Status& error);

 private:
  Metrics* metrics_ = nullptr;
  absl::string_view protocol_;  // a literal
};

}  // namespace sessa
