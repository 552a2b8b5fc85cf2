// The core of the server; see service.h.
#include "server/core/service.h"

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/monotonic.h"
#include "server/core/event_queue.h"
#include "server/core/generation_impl.h"
#include "server/core/text_stream.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

ModelFacts FactsOf(const ServedModel& model) {
  return {model.name, model.engine->config().vocab_size, model.engine->options().max_model_len,
          model.tokenizer != nullptr, model.defaults};
}

// A whole answer is gathered by this server, which reads as fast as it can: only its size bounds it
// (max_total_tokens).
int QueueBound(const GenerationRequest& request, size_t num_prompts, const Limits& limits) {
  if (!request.stream) return std::numeric_limits<int>::max();
  return std::max(limits.max_queued_events,
                  static_cast<int>(num_prompts * request.n) * Limits::kMinQueuedEvents);
}

// The engine's own refusals in the API's words: its messages open with the field's name.
absl::Status NameField(absl::Status refused, const std::string& prompt_name) {
  if (refused.code() == absl::StatusCode::kInvalidArgument) {
    const absl::string_view message = refused.message();
    const absl::string_view field = message.substr(0, message.find(':'));
    if (field != "prompt") return Annotate(refused, field, "");
    return FieldError(prompt_name, absl::StripLeadingAsciiWhitespace(absl::StripPrefix(message, "prompt:")));
  }
  if (refused.code() == absl::StatusCode::kOutOfRange) return Annotate(refused, prompt_name, "");
  return refused;
}

}  // namespace

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

absl::Status Service::CheckQueue(const std::string& tenant) const {
  if (absl::Status room = tenants_.CheckRoom(tenant); !room.ok()) return room;
  auto served = model();
  if (served == nullptr) return absl::OkStatus();  // Generate says that it is loading
  Arrival arrival;
  arrival.tenant = tenant;
  arrival.tenant_weight = tenants_.Limits(tenant).weight;
  arrival.priority = Arrival::kMostUrgent;
  return served->engine->CheckQueue(arrival);
}

absl::Status Service::CheckBeforeTokenising(const ServedModel& served, const GenerationRequest& request,
                                            const std::string& tenant, absl::Time deadline) const {
  Arrival arrival;
  arrival.tenant = tenant;
  arrival.tenant_weight = tenants_.Limits(tenant).weight;
  arrival.priority = static_cast<int>(request.priority);
  arrival.n = static_cast<int>(request.n);
  arrival.max_tokens = static_cast<int>(request.max_tokens.value_or(1));
  arrival.deadline = deadline;
  const int64_t max_model_len = served.engine->options().max_model_len;
  for (const PromptInput& prompt : request.prompts) {
    const auto* text = std::get_if<std::string>(&prompt);
    int64_t least = text != nullptr ? served.tokenizer->MinTokens(text->size())
                                    : static_cast<int64_t>(std::get<std::vector<int32_t>>(prompt).size());
    if (request.truncate_prompt_tokens.has_value()) {
      least = std::min(least, *request.truncate_prompt_tokens);
    } else if (least >= max_model_len) {
      return ContextLengthError(request.prompt_name,
                                absl::StrCat("This model's context is ", max_model_len,
                                             " tokens; the prompt has at least ", least, "."));
    }
    arrival.num_prompt_tokens = std::max<int64_t>(1, least);
    if (absl::Status room = served.engine->CheckQueue(arrival); !room.ok()) return room;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<int32_t>>> Service::EncodePrompts(const ServedModel& served,
                                                                         GenerationRequest* request) const {
  // A chat template writes its special tokens itself.
  const bool add_special = request->add_special_tokens.value_or(!request->is_chat);
  const std::string& param = request->prompt_name;
  std::vector<std::vector<int32_t>> prompts;
  for (PromptInput& prompt : request->prompts) {
    std::vector<int32_t> ids;
    if (const auto* text = std::get_if<std::string>(&prompt)) {
      auto encoded = served.tokenizer->Encode(*text, add_special);
      if (!encoded.ok()) return FieldError(param, encoded.status().message());
      ids = *std::move(encoded);
    } else {
      ids = std::move(std::get<std::vector<int32_t>>(prompt));
    }
    if (request->truncate_prompt_tokens.has_value() && ids.size() > *request->truncate_prompt_tokens) {
      ids.erase(ids.begin(), ids.end() - *request->truncate_prompt_tokens);
    }
    if (ids.empty()) return FieldError(param, "holds no token; the model needs at least one");
    prompts.push_back(std::move(ids));
  }
  request->prompts.clear();  // the texts were needed for this alone
  request->chat = {};
  return prompts;
}

absl::StatusOr<std::unique_ptr<Generation>> Service::Generate(GenerationRequest request,
                                                              const std::string& tenant, RequestTicket ticket,
                                                              const std::atomic<bool>* gone) {
  auto fail = [&ticket](const absl::Status& status) {
    ticket.Finish(status);
    return status;
  };
  if (absl::Status open = CheckState(/*settling_is_fine=*/true); !open.ok()) return fail(open);
  std::shared_ptr<const ServedModel> served = model();
  const ModelFacts facts = FactsOf(*served);
  if (absl::Status valid = ValidateRequest(request, facts, options_.limits); !valid.ok()) return fail(valid);
  const TenantLimits tenant_limits = tenants_.Limits(tenant);
  if (request.priority < tenant_limits.min_priority || request.priority > tenant_limits.max_priority) {
    return fail(FieldError(
        "priority", absl::StrCat("must be between ", tenant_limits.min_priority, " and ",
                                 tenant_limits.max_priority, " with this API key, got ", request.priority)));
  }
  const absl::Time deadline = MonotonicNow() + request.timeout.value_or(options_.limits.default_timeout);
  if (request.is_chat) {
    auto text = RenderChat(served->name, request.chat, gone);
    if (!text.ok()) return fail(text.status());
    request.prompts = {*std::move(text)};
  }
  if (absl::Status room = CheckBeforeTokenising(*served, request, tenant, deadline); !room.ok())
    return fail(room);
  auto prompts = EncodePrompts(*served, &request);
  if (!prompts.ok()) return fail(prompts.status());

  const uint64_t seed = RandomSeed();
  std::vector<Request> requests(prompts->size());
  auto queue =
      std::make_shared<EventQueue>(QueueBound(request, requests.size(), options_.limits), &byte_budget_);
  int64_t total_tokens = 0, prompt_tokens = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    Request& r = requests[i];
    absl::Status fits = ToSampling(request, facts, static_cast<int>((*prompts)[i].size()), seed, &r.sampling);
    if (!fits.ok()) return fail(fits);
    total_tokens += request.n * r.sampling.max_tokens;
    prompt_tokens += static_cast<int64_t>((*prompts)[i].size());
    if (!request.echo_starts.empty()) r.sampling.prompt_logprobs_start = request.echo_starts[i];
    r.prompt = (*prompts)[i];
    r.n = static_cast<int>(request.n);
    r.deadline = deadline;
    r.tenant = tenant;
    r.tenant_weight = tenant_limits.weight;
    r.priority = static_cast<int>(request.priority);
    r.sink = std::make_shared<PromptSink>(queue, &metrics_, static_cast<int>(i), r.n, r.sampling.max_tokens);
  }
  if (total_tokens > options_.limits.max_total_tokens) {
    return fail(FieldError(request.max_tokens_name,
                           absl::StrCat("prompts * n * ", request.max_tokens_name, " is ", total_tokens,
                                        ", at most ", options_.limits.max_total_tokens, " are served")));
  }
  absl::Status bounded = served->answer_bound->Check(request, *prompts, absl::MakeSpan(requests),
                                                     options_.limits.max_answer_bytes);
  if (!bounded.ok()) return fail(bounded);
  ByteBudget::Lease prompt_lease(&byte_budget_, ByteBudget::Kind::kInput);
  if (!prompt_lease.Resize(AnswerBound::PromptLogprobBytes(request, *prompts)))
    return fail(OutOfBytesError(options_.retry_after));
  absl::StatusOr<Tenants::Pass> pass = tenants_.Enter(tenant, prompt_tokens + total_tokens);
  if (!pass.ok()) return fail(pass.status());

  // All or none: when one prompt is refused, those before it are taken back.
  std::vector<RequestId> ids;
  for (Request& r : requests) {
    absl::StatusOr<RequestId> id = served->engine->Submit(std::move(r));
    if (!id.ok()) {
      queue->Close();
      for (RequestId taken : ids) served->engine->Cancel(taken);
      return fail(NameField(id.status(), request.prompt_name));
    }
    ids.push_back(*id);
  }
  watchdog_.Watch(queue);
  return std::make_unique<GenerationImpl>(this, std::move(served), std::move(request), *std::move(prompts),
                                          std::move(queue), std::move(ids), deadline, *std::move(pass),
                                          std::move(ticket), std::move(prompt_lease));
}

absl::StatusOr<std::vector<int32_t>> Service::Tokenize(const std::string& model, const std::string& text,
                                                       bool add_special_tokens,
                                                       const std::string& text_name) const {
  auto served = FindModel(model);
  if (!served.ok()) return served.status();
  if ((*served)->tokenizer == nullptr) return FieldError(text_name, "this model has no tokenizer");
  const Tokenizer& tokenizer = *(*served)->tokenizer;
  const auto check = [&](int64_t num_ids, const char* least) {
    if (num_ids <= options_.limits.max_answer_bytes / AnswerBound::kIdBytes) return absl::OkStatus();
    return FieldError(text_name,
                      absl::StrCat("it has ", least, num_ids, " tokens, whose ids may come to more than ",
                                   options_.limits.max_answer_bytes, " bytes (max_answer_bytes)"),
                      "answer_too_large");
  };
  if (absl::Status fits = check(tokenizer.MinTokens(text.size()), "at least "); !fits.ok()) return fits;
  auto ids = tokenizer.Encode(text, add_special_tokens);
  if (!ids.ok()) return FieldError(text_name, ids.status().message());
  if (absl::Status fits = check(static_cast<int64_t>(ids->size()), ""); !fits.ok()) return fits;
  return ids;
}

absl::StatusOr<std::string> Service::RenderChat(const std::string& model, const Chat& chat,
                                                const std::atomic<bool>* gone) const {
  auto served = FindModel(model);
  if (!served.ok()) return served.status();
  if ((*served)->chat_template == nullptr) return FieldError("messages", "this model has no chat template");
  auto text = (*served)->chat_template->Render(chat, gone);
  if (absl::IsCancelled(text.status())) return text.status();
  if (!text.ok()) return FieldError("messages", text.status().message());
  return text;
}

absl::StatusOr<std::string> Service::Detokenize(const std::string& model, const std::vector<int64_t>& ids,
                                                bool skip_special_tokens) const {
  auto served = FindModel(model);
  if (!served.ok()) return served.status();
  if ((*served)->tokenizer == nullptr) return FieldError("tokens", "this model has no tokenizer");
  const int vocab_size = (*served)->engine->config().vocab_size;
  std::vector<int32_t> tokens;
  for (int64_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return FieldError("tokens", absl::StrCat("token id ", id, " is not in [0, ", vocab_size, ")"));
    }
    tokens.push_back(static_cast<int32_t>(id));
  }
  const int64_t bytes = (*served)->answer_bound->TextBytes(tokens);
  if (bytes > options_.limits.max_answer_bytes) {
    return FieldError("tokens",
                      absl::StrCat("their text may come to ", bytes, " bytes, at most ",
                                   options_.limits.max_answer_bytes, " (max_answer_bytes) are served"),
                      "answer_too_large");
  }
  auto text = (*served)->tokenizer->Decode(tokens, skip_special_tokens);
  if (!text.ok()) return FieldError("tokens", text.status().message());
  return text;
}

std::string Service::RenderMetrics() {
  auto served = model();
  if (served == nullptr) return metrics_.Render(nullptr, Live(), false, tenants_.Use());
  const EngineStats stats = served->engine->Stats();
  return metrics_.Render(&stats, Live(), Ready(), tenants_.Use());
}

}  // namespace sessa
