// The core behind REST and gRPC: readiness, validation, tokenisation, submission and accounting. It exists
// before the model is loaded, so that probes answer; SetModel makes it ready. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "flags/version.h"
#include "server/core/answer_bound.h"
#include "server/core/api_keys.h"
#include "server/core/byte_budget.h"
#include "server/core/errors.h"
#include "server/core/generation.h"
#include "server/core/generation_request.h"
#include "server/core/limits.h"
#include "server/core/metrics.h"
#include "server/core/tenants.h"
#include "server/core/text_pool.h"
#include "server/core/watchdog.h"

namespace sessa {

class ChatTemplate;
class EventQueue;
class Tokenizer;

struct ServedModel {
  std::string name;
  std::shared_ptr<Engine> engine;
  std::shared_ptr<const Tokenizer> tokenizer;         // null: token ids alone
  std::shared_ptr<const ChatTemplate> chat_template;  // null: no chat
  SamplingDefaults defaults;                          // of what requests leave open
  std::shared_ptr<const AnswerBound> answer_bound;    // SetModel's
  std::string tokenizer_info = "{}";                  // JSON, for /tokenizer_info
  absl::Time created = absl::Now();                   // for clients to read
};

enum class ServiceState { kLoading, kReady, kSettling, kDraining };

struct ServiceOptions {
  Limits limits;
  ApiKeys api_keys;        // the first; Service::tenants takes others
  std::string model_name;  // of the metrics' label; that of the model which SetModel will bring
  std::string version = kVersion;
  absl::Duration watchdog = absl::Seconds(60);  // a busy engine silent for longer is dead
  absl::Duration retry_after = absl::Seconds(1);
  bool access_log = false;
  int num_text_threads = 2;
  Tenants::Clock tenant_clock = &MonotonicNow;  // of rates; for tests
};

class Service {
 public:
  explicit Service(ServiceOptions options);
  ~Service();

  // --- life ---
  void SetModel(ServedModel model);  // once: loading -> ready
  // Readiness off, requests are taken still: until balancers have seen it, they send some.
  void BeginSettle();
  void BeginDrain();  // readiness off, new requests UNAVAILABLE; what runs goes on
  // BeginDrain, then Engine::Drain: returns when all have ended or `deadline`, the rest ended with
  // UNAVAILABLE; false when they did not end even so.
  bool Drain(absl::Time deadline);
  ServiceState state() const;
  // Loading, or the engine is healthy and its loop turns; and connections are taken. Never a matter of load.
  bool Live() const;
  bool Ready() const;    // a model is there, healthy, not draining
  bool Started() const;  // SetModel was called
  // Whether the listeners answer, as their watch found last.
  void SetListening(bool listening) { listening_ = listening; }
  // Why Ready() is false; OK when it is true.
  absl::Status Readiness() const;
  bool Ending() const;  // settling or draining

  // --- requests ---
  // Each received generation request takes one ticket first, whatever becomes of it.
  RequestTicket Begin(absl::string_view protocol) { return RequestTicket(&metrics_, protocol); }
  absl::StatusOr<std::string> Authenticate(absl::string_view authorization) const {
    return tenants_.Authenticate(authorization);
  }
  // Whether the engine's queue and the tenant's own limits have room for anything of this tenant: before its
  // body is parsed, or even read.
  absl::Status CheckQueue(const std::string& tenant) const;
  // Validates, tokenises and submits. What could never be taken is not tokenised. On error the ticket has its
  // outcome. `ticket` is kept until the end. `gone`, when given, ends the work on the text once it is true,
  // with CANCELLED: nobody waits for it.
  absl::StatusOr<std::unique_ptr<Generation>> Generate(GenerationRequest request, const std::string& tenant,
                                                       RequestTicket ticket,
                                                       const std::atomic<bool>* gone = nullptr);

  // `text_name`: what the client calls where the text comes from, for errors.
  absl::StatusOr<std::vector<int32_t>> Tokenize(const std::string& model, const std::string& text,
                                                bool add_special_tokens, const std::string& text_name) const;
  // The chat template's text of `chat`.
  absl::StatusOr<std::string> RenderChat(const std::string& model, const Chat& chat,
                                         const std::atomic<bool>* gone = nullptr) const;
  absl::StatusOr<std::string> Detokenize(const std::string& model, const std::vector<int64_t>& ids,
                                         bool skip_special_tokens) const;

  // The served model when `name` is empty or its name; else UNAVAILABLE (loading) or NOT_FOUND.
  absl::StatusOr<std::shared_ptr<const ServedModel>> FindModel(absl::string_view name) const;
  std::string RenderMetrics();

  // The seed of a request that names none: below 2^53, so that a client can read it back from JSON and repeat
  // it.
  static uint64_t RandomSeed();

  TextPool& text_pool() { return text_pool_; }
  ByteBudget& byte_budget() { return byte_budget_; }
  const ServiceOptions& options() const { return options_; }
  const Limits& limits() const { return options_.limits; }
  Tenants& tenants() { return tenants_; }
  const Tenants& tenants() const { return tenants_; }
  Metrics& metrics() { return metrics_; }

 private:
  friend class GenerationImpl;
  // A generation on its way to the engine.
  struct Taken {
    std::shared_ptr<const ServedModel> served;
    GenerationRequest request;
    absl::Time deadline;
    std::vector<std::vector<int32_t>> prompts;  // token ids
    std::shared_ptr<EventQueue> queue;
    std::vector<Request> requests;  // [prompt]
    int64_t num_tokens = 0;         // of the prompts and at most of all choices
  };
  std::shared_ptr<const ServedModel> model() const;
  absl::Status EngineHealth(const ServedModel& model) const;
  // UNAVAILABLE when the engine has work and its loop does not turn.
  absl::Status CheckLoop(const EngineStats& stats) const;
  absl::Status CheckState(bool settling_is_fine) const;
  // Generate in steps; `ticket` is taken when it succeeds.
  absl::StatusOr<std::unique_ptr<Generation>> Take(GenerationRequest request, const std::string& tenant,
                                                   const std::atomic<bool>* gone, RequestTicket* ticket);
  absl::Status ReadPrompts(const std::string& tenant, const std::atomic<bool>* gone, Taken* taken) const;
  absl::Status MakeRequests(const std::string& tenant, Taken* taken);
  absl::StatusOr<std::vector<RequestId>> Submit(Taken* taken);
  // One list of token ids for each prompt.
  absl::StatusOr<std::vector<std::vector<int32_t>>> EncodePrompts(const ServedModel& model,
                                                                  GenerationRequest* request) const;
  // What Submit will ask of the queue, as far as it is known without tokenising: every text has at least so
  // many tokens as its bytes need.
  absl::Status CheckBeforeTokenising(const ServedModel& model, const GenerationRequest& request,
                                     const std::string& tenant, absl::Time deadline) const;

  const ServiceOptions options_;
  Metrics metrics_;
  std::atomic<bool> listening_{true};
  Tenants tenants_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const ServedModel> model_ ABSL_GUARDED_BY(mutex_);
  bool settling_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  ByteBudget byte_budget_;
  TextPool text_pool_;  // its threads use the rest
  Watchdog watchdog_;
};

}  // namespace sessa
