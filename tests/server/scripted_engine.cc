// See scripted_engine.h. One thread for each request: as with the real engine, results come on another thread
// than Submit's, possibly before it has returned.
#include "tests/server/scripted_engine.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "engine/check_request.h"
#include "engine/monotonic.h"

namespace sessa {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

RequestEnd EndOf(absl::Time arrival, absl::Status status, int num_tokens) {
  RequestEnd end;
  end.status = std::move(status);
  end.arrival = end.scheduled = arrival;
  end.first_token = num_tokens > 0 ? arrival : absl::InfinitePast();
  end.finished = MonotonicNow();
  end.num_generated_tokens = num_tokens;
  return end;
}

TokenLogprobs Logprobs(int32_t token, int position, int num_best) {
  TokenLogprobs logprobs;
  logprobs.logprob = -0.5f * static_cast<float>(position + 1);
  logprobs.rank = num_best > 0 ? 1 : 7;
  for (int k = 0; k < num_best; ++k) logprobs.top.emplace_back(token + k, -1.0f * static_cast<float>(k + 1));
  return logprobs;
}

PromptInfo PromptOf(const Request& request) {
  PromptInfo info;
  info.num_tokens = static_cast<int>(request.prompt.size());
  info.num_cached_tokens = 1;
  if (request.sampling.prompt_logprobs) {
    for (int i = request.sampling.prompt_logprobs_start; i < info.num_tokens; ++i) {
      info.logprobs.push_back(Logprobs(request.prompt[i], i, request.sampling.num_logprobs));
    }
  }
  return info;
}

}  // namespace

ScriptedEngine::ScriptedEngine(int vocab_size, int max_model_len) {
  config_.vocab_size = vocab_size;
  config_.eos_token_ids = {kEos};
  config_.hidden_size = 16;
  config_.num_layers = 2;
  config_.num_heads = 4;
  config_.num_kv_heads = 1;
  options_.max_model_len = max_model_len;
  options_.state_dtype = DType::kF32;
}

ScriptedEngine::~ScriptedEngine() { Stop(); }

void ScriptedEngine::Stop() {
  Drain(MonotonicNow());
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

absl::Status ScriptedEngine::CheckQueue(const Arrival& arrival) const {
  absl::MutexLock lock(&mutex_);
  return CheckRoom(arrival);
}

absl::Status ScriptedEngine::CheckRoom(const Arrival& arrival) const {
  if (arrival.num_prompt_tokens <= max_prompt_tokens_) return absl::OkStatus();
  absl::Status full = absl::ResourceExhaustedError("the queue is full");
  full.SetPayload(kRetryAfterMsPayload, absl::Cord("6500"));
  return full;
}

void ScriptedEngine::Hold() {
  absl::MutexLock lock(&mutex_);
  held_ = true;
}

void ScriptedEngine::Release() {
  absl::MutexLock lock(&mutex_);
  held_ = false;
}

int ScriptedEngine::num_queue_refusals() const {
  absl::MutexLock lock(&mutex_);
  return num_queue_refusals_;
}

void ScriptedEngine::SetSilence(absl::Duration silence) {
  absl::MutexLock lock(&mutex_);
  silence_ = silence;
}

void ScriptedEngine::LimitQueue(int64_t max_prompt_tokens) {
  absl::MutexLock lock(&mutex_);
  max_prompt_tokens_ = max_prompt_tokens;
}

void ScriptedEngine::PlayAtOnce() {
  absl::MutexLock lock(&mutex_);
  at_once_ = true;
}

absl::StatusOr<RequestId> ScriptedEngine::Submit(Request request) {
  absl::ReleasableMutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](bool* held) { return !*held; }, &held_));
  if (!refuse_.ok()) return refuse_;
  if (absl::Status valid = CheckRequest(request, config_); !valid.ok()) return valid;
  if (absl::Status room = CheckRoom(ArrivalOf(request)); !room.ok()) return ++num_queue_refusals_, room;
  last_ = request;
  last_.sink = nullptr;
  const RequestId id = ++num_submitted_;
  if (at_once_) {
    const std::vector<int32_t> script = script_;
    lock.Release();
    Play(request, script);
  } else if (request.prompt[0] == kHang) {
    hanging_.emplace(id, absl::OkStatus());
    threads_.emplace_back([this, id, request = std::move(request)] { Hang(id, request); });
  } else {
    threads_.emplace_back([this, request = std::move(request), script = script_] { Play(request, script); });
  }
  return id;
}

void ScriptedEngine::Play(const Request& request, std::vector<int32_t> script) const {
  const absl::Time arrival = MonotonicNow();
  request.sink->OnPrompt(PromptOf(request));
  const int max_tokens = request.sampling.max_tokens;
  const int num_tokens =
      script.empty() ? max_tokens : std::min<int>(max_tokens, static_cast<int>(script.size()));
  int num_generated = 0;
  for (int i = 0; i < num_tokens; ++i) {
    for (int choice = 0; choice < request.n; ++choice) {
      TokenUpdate update;
      update.choice = choice;
      update.token = script.empty() ? (request.prompt[0] + choice * 10 + i) % config_.vocab_size : script[i];
      if (request.sampling.num_logprobs >= 0)
        update.logprobs = Logprobs(update.token, i, request.sampling.num_logprobs);
      if (i + 1 == num_tokens) {
        const bool whole_script = !script.empty() && num_tokens == static_cast<int>(script.size());
        update.finish = whole_script ? FinishReason::kStop : FinishReason::kLength;
      }
      ++num_generated;
      if (!request.sink->OnToken(std::move(update))) {
        return request.sink->OnEnd(
            EndOf(arrival, absl::CancelledError("the reader is gone or too slow"), num_generated));
      }
    }
  }
  request.sink->OnEnd(EndOf(arrival, absl::OkStatus(), num_generated));
}

void ScriptedEngine::Hang(RequestId id, const Request& request) {
  const absl::Time arrival = MonotonicNow();
  request.sink->OnPrompt(PromptOf(request));
  TokenUpdate update;
  update.token = 1;
  if (request.sampling.num_logprobs >= 0) update.logprobs = Logprobs(1, 0, request.sampling.num_logprobs);
  request.sink->OnToken(std::move(update));
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    auto ended = [this, id]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !hanging_.at(id).ok(); };
    status = mutex_.AwaitWithTimeout(absl::Condition(&ended), request.deadline - MonotonicNow())
                 ? hanging_.at(id)
                 : absl::DeadlineExceededError("the deadline has passed");
    hanging_.erase(id);
  }
  request.sink->OnEnd(EndOf(arrival, std::move(status), 1));
}

void ScriptedEngine::Cancel(RequestId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = hanging_.find(id);
  if (it == hanging_.end() || !it->second.ok()) return;
  it->second = absl::CancelledError("cancelled");
  ++num_cancelled_;
}

void ScriptedEngine::StopChoice(RequestId, int) {
}  // what was drawn before the stop is seen comes all the same

bool ScriptedEngine::Drain(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  auto empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return hanging_.empty(); };
  if (mutex_.AwaitWithTimeout(absl::Condition(&empty), deadline - MonotonicNow())) return true;
  for (auto& [id, status] : hanging_) {
    if (status.ok()) status = absl::UnavailableError("the server is shutting down");
  }
  mutex_.Await(absl::Condition(&empty));
  return true;
}

EngineStats ScriptedEngine::Stats() const {
  EngineStats stats;
  stats.page_size = 16;
  stats.num_pages = 8;
  stats.num_used_pages = 2;
  stats.num_waiting = 3;
  absl::MutexLock lock(&mutex_);
  stats.heartbeat = MonotonicNow() - silence_;
  stats.health = health_;
  return stats;
}

void ScriptedEngine::SetScript(std::vector<int32_t> tokens) {
  tokens.push_back(kEos);
  absl::MutexLock lock(&mutex_);
  script_ = std::move(tokens);
}

void ScriptedEngine::Refuse(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  refuse_ = std::move(status);
}

void ScriptedEngine::SetHealth(absl::Status health) {
  absl::MutexLock lock(&mutex_);
  health_ = std::move(health);
}

int ScriptedEngine::num_submitted() const {
  absl::MutexLock lock(&mutex_);
  return num_submitted_;
}

Request ScriptedEngine::last() const {
  absl::MutexLock lock(&mutex_);
  return last_;
}

bool ScriptedEngine::WaitForSubmitted(int count) const {
  auto reached = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_submitted_ >= count; };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

bool ScriptedEngine::WaitForCancelled(int count) const {
  auto reached = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_cancelled_ >= count; };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

bool ScriptedEngine::WaitForNoneHanging() const {
  auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return hanging_.empty(); };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&none), kPatience);
}

bool WaitUntilAllEnded(Service* service) {
  const absl::Time deadline = MonotonicNow() + kPatience;
  while (service->metrics().ended() != service->metrics().received()) {
    if (MonotonicNow() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

}  // namespace sessa
