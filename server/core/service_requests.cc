// The part of Service that takes requests: from what a front end has parsed to what the engine runs; see
// service.h.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/monotonic.h"
#include "server/core/event_queue.h"
#include "server/core/generation_impl.h"
#include "server/core/service.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

ModelFacts FactsOf(const ServedModel& model) {
  return {model.name,
          model.engine->config().vocab_size,
          model.engine->options().max_model_len,
          model.tokenizer != nullptr,
          model.defaults,
          !model.engine->config().is_recurrent()};
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
  arrival.max_tokens = static_cast<int>(
      std::min(request.max_tokens.value_or(1), served.defaults.max_tokens.value_or(INT64_MAX)));
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

absl::Status Service::ReadPrompts(const std::string& tenant, const std::atomic<bool>* gone,
                                  Taken* taken) const {
  GenerationRequest& request = taken->request;
  const ModelFacts facts = FactsOf(*taken->served);
  if (absl::Status valid = ValidateRequest(request, facts, options_.limits); !valid.ok()) return valid;
  const TenantLimits tenant_limits = tenants_.Limits(tenant);
  if (request.priority < tenant_limits.min_priority || request.priority > tenant_limits.max_priority) {
    return FieldError("priority",
                      absl::StrCat("must be between ", tenant_limits.min_priority, " and ",
                                   tenant_limits.max_priority, " with this API key, got ", request.priority));
  }
  taken->deadline = MonotonicNow() + request.timeout.value_or(options_.limits.default_timeout);
  if (request.is_chat) {
    auto text = RenderChat(taken->served->name, request.chat, gone);
    if (!text.ok()) return text.status();
    request.prompts = {*std::move(text)};
  }
  absl::Status room = CheckBeforeTokenising(*taken->served, request, tenant, taken->deadline);
  if (!room.ok()) return room;
  auto prompts = EncodePrompts(*taken->served, &request);
  if (prompts.ok()) taken->prompts = *std::move(prompts);
  return prompts.status();
}

absl::Status Service::MakeRequests(const std::string& tenant, Taken* taken) {
  const GenerationRequest& request = taken->request;
  const ModelFacts facts = FactsOf(*taken->served);
  const int weight = tenants_.Limits(tenant).weight;
  const uint64_t seed = RandomSeed();
  const size_t num_prompts = taken->prompts.size();
  taken->queue =
      std::make_shared<EventQueue>(QueueBound(request, num_prompts, options_.limits), &byte_budget_);
  taken->requests.resize(num_prompts);
  int64_t new_tokens = 0;
  for (size_t i = 0; i < num_prompts; ++i) {
    Request& r = taken->requests[i];
    const auto num_tokens = static_cast<int>(taken->prompts[i].size());
    absl::Status fits = ToSampling(request, facts, num_tokens, seed, &r.sampling);
    if (!fits.ok()) return fits;
    new_tokens += request.n * r.sampling.max_tokens;
    taken->num_tokens += num_tokens;
    if (!request.echo_starts.empty()) r.sampling.prompt_logprobs_start = request.echo_starts[i];
    r.prompt = taken->prompts[i];
    r.n = static_cast<int>(request.n);
    r.deadline = taken->deadline;
    r.tenant = tenant;
    r.tenant_weight = weight;
    r.priority = static_cast<int>(request.priority);
    r.num_speculative_tokens = static_cast<int>(request.num_speculative_tokens.value_or(-1));
    r.sink = std::make_shared<PromptSink>(taken->queue, &metrics_, static_cast<int>(i), r.n,
                                          r.sampling.max_tokens);
  }
  taken->num_tokens += new_tokens;
  if (new_tokens <= options_.limits.max_total_tokens) return absl::OkStatus();
  return FieldError(request.max_tokens_name,
                    absl::StrCat("prompts * n * ", request.max_tokens_name, " is ", new_tokens, ", at most ",
                                 options_.limits.max_total_tokens, " are served"));
}

// All or none: when one prompt is refused, those before it are taken back.
absl::StatusOr<std::vector<RequestId>> Service::Submit(Taken* taken) {
  std::vector<RequestId> ids;
  for (Request& r : taken->requests) {
    absl::StatusOr<RequestId> id = taken->served->engine->Submit(std::move(r));
    if (!id.ok()) {
      taken->queue->Close();
      for (RequestId submitted : ids) taken->served->engine->Cancel(submitted);
      return NameField(id.status(), taken->request.prompt_name);
    }
    ids.push_back(*id);
  }
  return ids;
}

absl::StatusOr<std::unique_ptr<Generation>> Service::Take(GenerationRequest request,
                                                          const std::string& tenant,
                                                          const std::atomic<bool>* gone,
                                                          RequestTicket* ticket) {
  if (absl::Status open = CheckState(/*settling_is_fine=*/true); !open.ok()) return open;
  Taken taken;
  taken.served = model();
  taken.request = std::move(request);
  if (absl::Status read = ReadPrompts(tenant, gone, &taken); !read.ok()) return read;
  if (absl::Status made = MakeRequests(tenant, &taken); !made.ok()) return made;
  absl::Status bounded = taken.served->answer_bound->Check(
      taken.request, taken.prompts, absl::MakeSpan(taken.requests), options_.limits.max_answer_bytes);
  if (!bounded.ok()) return bounded;
  ByteBudget::Lease prompt_lease(&byte_budget_, ByteBudget::Kind::kInput);
  if (!prompt_lease.Resize(AnswerBound::PromptLogprobBytes(taken.request, taken.prompts)))
    return OutOfBytesError(options_.retry_after);
  absl::StatusOr<Tenants::Pass> pass = tenants_.Enter(tenant, taken.num_tokens);
  if (!pass.ok()) return pass.status();
  absl::StatusOr<std::vector<RequestId>> ids = Submit(&taken);
  if (!ids.ok()) return ids.status();
  watchdog_.Watch(taken.queue);
  return std::make_unique<GenerationImpl>(this, std::move(taken.served), std::move(taken.request),
                                          std::move(taken.prompts), std::move(taken.queue), *std::move(ids),
                                          taken.deadline, *std::move(pass), std::move(*ticket),
                                          std::move(prompt_lease));
}

absl::StatusOr<std::unique_ptr<Generation>> Service::Generate(GenerationRequest request,
                                                              const std::string& tenant, RequestTicket ticket,
                                                              const std::atomic<bool>* gone) {
  auto generation = Take(std::move(request), tenant, gone, &ticket);
  if (!generation.ok()) ticket.Finish(generation.status());
  return generation;
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

}  // namespace sessa
