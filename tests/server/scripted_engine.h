// An engine whose tokens the test writes, behind the same interface as the real one: for tests of the front
// ends, which need to know what comes back, and to hold a request for as long as they look. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/core/service.h"
#include "server/core/token_engine.h"

namespace sessa {

// Judges requests as the real engine does. Without a script it counts: token i of choice c is prompt[0] + c *
// 10 + i, to max_tokens. With one, every choice is the script and an eos, cut at max_tokens.
// Log-probabilities of token i: -(i + 1) / 2, and of the k best -1 .. -k. A first prompt token of kHang gives
// one token and then nothing until cancelled, drained away or past its deadline.
class ScriptedEngine final : public TokenEngine {
 public:
  static constexpr int kHang = 99;
  static constexpr int32_t kEos = 0;

  explicit ScriptedEngine(int vocab_size = 100, int max_model_len = 64);
  ~ScriptedEngine() override;

  absl::StatusOr<RequestId> Submit(Request request) override;
  void Cancel(RequestId id) override;
  void StopChoice(RequestId id, int choice) override;
  void Drain(absl::Time deadline) override;
  void Stop();  // ends what runs; afterwards no sink is touched, and what sinks report to may go
  EngineStats Stats() const override;
  const ModelConfig& config() const override { return config_; }
  const EngineOptions& options() const override { return options_; }

  void SetScript(std::vector<int32_t> tokens);
  void Refuse(absl::Status status);  // all that is submitted from now on
  void SetHealth(absl::Status health);

  int num_submitted() const;
  Request last() const;  // without its sink
  // Wait: true when `count` requests were submitted, or hanging ones cancelled.
  bool WaitForSubmitted(int count) const;
  bool WaitForCancelled(int count) const;
  bool WaitForNoneHanging() const;

 private:
  void Play(const Request& request, std::vector<int32_t> script);
  void Hang(RequestId id, const Request& request);

  ModelConfig config_;
  EngineOptions options_;
  mutable absl::Mutex mutex_;
  absl::Status refuse_ ABSL_GUARDED_BY(mutex_);
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  std::vector<int32_t> script_ ABSL_GUARDED_BY(mutex_);
  std::map<RequestId, absl::Status> hanging_
      ABSL_GUARDED_BY(mutex_);  // OK: still to wait, else how it is to end
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  int num_submitted_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  Request last_ ABSL_GUARDED_BY(mutex_);
};

// Waits: true when every request that was received has its outcome.
bool WaitUntilAllEnded(Service* service);

}  // namespace sessa
