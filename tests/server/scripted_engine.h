// An engine whose tokens the test writes, behind the same interface as the real one: for tests of the front
// ends, which need to know what comes back, and to hold a request for as long as they look. Thread-safe.
#pragma once

#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "server/core/service.h"

namespace sessa {

// Judges requests as the real engine does. Without a script it counts: token i of choice c is prompt[0] + c *
// 10 + i, to max_tokens. With one, every choice is the script and an eos, cut at max_tokens.
// Log-probabilities of token i: -(i + 1) / 2, and of the k best -1 .. -k. A first prompt token of kHang gives
// one token and then nothing until cancelled, drained away or past its deadline.
class ScriptedEngine final : public Engine {
 public:
  static constexpr int kHang = 99;
  static constexpr int32_t kEos = 0;

  explicit ScriptedEngine(int vocab_size = 100, int max_model_len = 64);
  ~ScriptedEngine() override;

  absl::StatusOr<RequestId> Submit(Request request) override;
  absl::Status CheckQueue(const Arrival& arrival) const override;
  void Cancel(RequestId id) override;
  void StopChoice(RequestId id, int choice) override;
  bool Drain(absl::Time deadline) override;
  void Stop();  // ends what runs; afterwards no sink is touched, and what sinks report to may go
  EngineStats Stats() const override;
  const ModelConfig& config() const override { return config_; }
  const EngineOptions& options() const override { return options_; }

  void SetScript(std::vector<int32_t> tokens);
  // From now on Submit plays the whole answer itself, on its caller's thread; kHang is a token as others.
  void PlayAtOnce();
  void Refuse(absl::Status status);  // all that is submitted from now on
  // From now on the queue takes prompts of at most so many tokens; 0: none at all.
  void LimitQueue(int64_t max_prompt_tokens);
  void SetHealth(absl::Status health);
  void SetSilence(absl::Duration silence);  // how long ago its loop last turned

  void Hold();     // Submit blocks
  void Release();  // until now
  int num_submitted() const;
  int num_queue_refusals() const;  // by Submit, because of LimitQueue
  Request last() const;            // without its sink
  // Wait: true when `count` requests were submitted, or hanging ones cancelled.
  bool WaitForSubmitted(int count) const;
  bool WaitForCancelled(int count) const;
  bool WaitForNoneHanging() const;

 private:
  absl::Status CheckRoom(const Arrival& arrival) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Play(const Request& request, std::vector<int32_t> script) const;
  void Hang(RequestId id, const Request& request);

  ModelConfig config_;
  EngineOptions options_;
  mutable absl::Mutex mutex_;
  absl::Status refuse_ ABSL_GUARDED_BY(mutex_);
  int64_t max_prompt_tokens_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int64_t>::max();
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  absl::Duration silence_ ABSL_GUARDED_BY(mutex_);
  std::vector<int32_t> script_ ABSL_GUARDED_BY(mutex_);
  std::map<RequestId, absl::Status> hanging_
      ABSL_GUARDED_BY(mutex_);  // OK: still to wait, else how it is to end
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool at_once_ ABSL_GUARDED_BY(mutex_) = false;
  int num_submitted_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_queue_refusals_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  Request last_ ABSL_GUARDED_BY(mutex_);
};

// Waits: true when every request that was received has its outcome.
bool WaitUntilAllEnded(Service* service);

}  // namespace sessa
