// The server's metrics (names: docs and features, item 11), through prometheus-cpp. Thread-safe. Engine
// gauges and counters are read from EngineStats at each scrape, so that they are one consistent snapshot.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/engine.h"

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

class Metrics {
 public:
  Metrics();
  ~Metrics();

  void OnReceived(absl::string_view protocol);  // "rest", "grpc", "kserve"
  void OnOutcome(Outcome outcome);
  void OnPromptTokens(int num_tokens);
  void OnGeneratedTokens(int num_tokens);
  void OnInterToken(absl::Duration gap);
  // Times of one engine request; those that it did not come to are InfinitePast and are left out.
  void OnEnd(const RequestEnd& end);
  void OnStep(const StepObservation& step);
  // Matches Engine::StepObserver; context is a Metrics*.
  static void StepObserver(void* context, const StepObservation& step);

  int64_t received() const;
  int64_t ended() const;  // sum over outcomes
  int64_t outcome(Outcome outcome) const;

  // The Prometheus text format; `stats` null while no engine is there.
  std::string Render(const EngineStats* stats, const std::string& model, bool ready);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

// One received request. Exactly one outcome is counted: the first Finish, or kError when dropped without.
class RequestTicket {
 public:
  RequestTicket() = default;
  RequestTicket(Metrics* metrics, absl::string_view protocol);
  RequestTicket(RequestTicket&& other) noexcept;
  RequestTicket& operator=(RequestTicket&& other) noexcept;
  ~RequestTicket();

  void Finish(Outcome outcome);
  // The outcome that fits an error.
  void Finish(const absl::Status& error);

 private:
  Metrics* metrics_ = nullptr;
};

}  // namespace sessa
