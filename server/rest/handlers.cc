// See handlers.h.
#include "server/rest/handlers.h"

#include <exception>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/core/access_log.h"
#include "server/core/json_writer.h"
#include "server/core/log.h"
#include "server/core/similarity.h"
#include "server/rest/generation_call.h"
#include "server/rest/request_json.h"
#include "server/rest/similarity_call.h"
#include "server/rest/status_json.h"
#include "server/rest/web_page.h"

namespace sessa {
namespace {

bool IsJson(const std::string& content_type) {
  const std::string type(absl::StripAsciiWhitespace(content_type.substr(0, content_type.find(';'))));
  return absl::EqualsIgnoreCase(type, "application/json");
}

void AddIgnored(const std::vector<std::string>& ignored,
                std::vector<std::pair<std::string, std::string>>* headers) {
  if (!ignored.empty()) headers->emplace_back("X-Sessa-Ignored-Fields", IgnoredFieldsHeader(ignored));
}

// OpenAI's headers: the tenant's limits, what is left of them and until when all is there again.
void AddRateLimits(const RateLimits& limits, std::vector<std::pair<std::string, std::string>>* headers) {
  const auto add = [headers](const char* what, const std::optional<RateLimit>& limit) {
    if (!limit.has_value()) return;
    headers->emplace_back(absl::StrCat("x-ratelimit-limit-", what), absl::StrCat(limit->limit));
    headers->emplace_back(absl::StrCat("x-ratelimit-remaining-", what), absl::StrCat(limit->remaining));
    headers->emplace_back(absl::StrCat("x-ratelimit-reset-", what),
                          absl::FormatDuration(absl::Ceil(limit->reset, absl::Milliseconds(1))));
  };
  add("requests", limits.requests);
  add("tokens", limits.tokens);
}

}  // namespace

std::optional<Reply> Handlers::Judge(Exchange* x) const {
  const RequestHead& head = x->head;
  std::optional<Route> route = FindRoute(head.path);
  if (!route.has_value() || (scope_ == Scope::kAdmin && !route->is_probe()))
    return ErrorReply(404, "not_found", absl::StrCat("There is nothing at '", head.path, "'."));
  x->route = *std::move(route);
  const bool allowed =
      x->route.is_post ? head.method == "POST" : head.method == "GET" || head.method == "HEAD";
  if (!allowed) {
    Reply reply =
        ErrorReply(405, "method_not_allowed",
                   absl::StrCat("'", head.path, "' takes ", x->route.is_post ? "POST" : "GET", " only."));
    reply.headers.emplace_back("Allow", x->route.is_post ? "POST" : "GET, HEAD");
    return reply;
  }
  if (x->route.generates) x->ticket = service_->Begin(x->route.is_kserve() ? "kserve" : "rest");
  if (scope_ == Scope::kSpare) x->head.keep_alive = false;
  if (scope_ == Scope::kSpare && !x->route.is_probe()) {
    const absl::Status full = absl::ResourceExhaustedError("the server has too many connections");
    x->ticket.Finish(full);
    return ErrorReply(full);
  }
  if (!x->route.is_open) {
    absl::StatusOr<std::string> tenant = service_->Authenticate(head.authorization);
    if (!tenant.ok()) {
      x->ticket.Finish(tenant.status());
      return ErrorReply(tenant.status());
    }
    x->tenant = *std::move(tenant);
  }
  std::optional<Reply> refused = JudgeWork(x);
  if (refused.has_value() && x->route.is_post)
    AddRateLimits(service_->tenants().Remaining(x->tenant), &refused->headers);
  return refused;
}

std::optional<Reply> Handlers::JudgeWork(Exchange* x) const {
  const RequestHead& head = x->head;
  if (x->route.is_post) {  // what works with text; to look at models and limits is free
    if (absl::Status taken = service_->tenants().TakeRequest(x->tenant); !taken.ok()) {
      x->ticket.Finish(taken);
      return ErrorReply(taken);
    }
  }
  std::optional<Reply> refused;
  if (head.version >= 11 && !head.has_host) {
    refused = ErrorReply(400, "bad_request", "The Host header is missing.");
  } else if (x->route.is_post && !IsJson(head.content_type)) {
    refused = ErrorReply(415, "unsupported_media_type", "Send 'Content-Type: application/json'.");
  } else if (head.content_length > service_->limits().max_body_bytes) {
    refused = ErrorReply(413, "request_too_large",
                         absl::StrCat("The body has ", head.content_length, " bytes, at most ",
                                      service_->limits().max_body_bytes, " are taken."));
  }
  if (refused.has_value()) {
    x->ticket.Finish(Outcome::kInvalid, refused->status);
  } else if (x->route.generates && head.content_length > static_cast<int64_t>(TextPool::kLongBytes)) {
    // With the queue full a long body is not even read; a short one has come with its head, most likely, and
    // its connection can be kept.
    if (absl::Status room = service_->CheckQueue(x->tenant); !room.ok()) {
      x->ticket.Finish(room);
      return ErrorReply(room);
    }
  }
  return refused;
}

Reply Handlers::OutOfBytes(Exchange* x) const {
  const absl::Status full = OutOfBytesError(service_->options().retry_after);
  x->ticket.Finish(full);
  return ErrorReply(full);
}

void Handlers::HandleText(Exchange* x, std::string body, const std::atomic<bool>& gone,
                          std::function<void(Result)> done) const {
  if (!x->route.is_post) return done(Handle(x, body));
  const size_t num_bytes = body.size();
  x->gone = &gone;
  auto work = [this, x, body = std::move(body), &gone, done] { done(gone ? Reply() : Handle(x, body)); };
  if (service_->text_pool().Post(num_bytes, std::move(work))) return;
  const absl::Status full = absl::ResourceExhaustedError("too many bodies wait to be read");
  x->ticket.Finish(full);
  done(ErrorReply(full));
}

void Handlers::LogAccess(const Exchange& x, const Call* call) const {
  if (!service_->options().access_log || !x.route.generates) return;
  AccessRecord record = {"rest", x.head.path, absl::StrCat(x.status), x.head.request_id,
                         MonotonicNow() - x.start};
  record.client = x.client;
  record.tenant = x.tenant;
  record.model = service_->options().model_name;
  record.error = x.error_code;
  record.reason = x.reason;
  if (call != nullptr) {
    record.usage = call->usage();
    record.times = call->times();
    if (call->ended() && !call->status().ok()) {
      record.error = Describe(call->status()).code;
      record.reason = std::string(call->status().message());
    }
  }
  WriteAccess(record);
}

Handlers::Result Handlers::Handle(Exchange* x, const std::string& body) const {
  try {
    Result result = Dispatch(x, body);
    auto* reply = std::get_if<Reply>(&result);
    if (reply == nullptr || x->route.endpoint == Endpoint::kPage) return result;  // files are in the program
    if (x->route.is_post) AddRateLimits(service_->tenants().Remaining(x->tenant), &reply->headers);
    reply->lease = ByteBudget::Lease(byte_budget(), ByteBudget::Kind::kOutput);
    if (reply->lease.Resize(static_cast<int64_t>(reply->body.size()))) return result;
    return OutOfBytes(x);
  } catch (const std::exception& e) {  // Boost.JSON and the standard library when memory is short
    Log(absl::StrCat("rest: ", Quoted(x->head.path), ": ", e.what()), LogLevel::kError);
  }
  x->ticket.Finish(Outcome::kError);
  return ErrorReply(absl::InternalError("The server failed on this request."));
}

Handlers::Result Handlers::Dispatch(Exchange* x, const std::string& body) const {
  switch (x->route.endpoint) {
    case Endpoint::kPage: return WebReply(x->head.path, x->head.if_none_match);
    case Endpoint::kLive:
    case Endpoint::kKserveLive:
      return Probe(service_->Live() ? absl::OkStatus()
                                    : UnavailableError("The engine or a listener has failed.", "unavailable",
                                                       absl::Seconds(1)),
                   x->route.endpoint);
    case Endpoint::kStartup:
      return Probe(service_->Started()
                       ? absl::OkStatus()
                       : UnavailableError("The model is still loading.", "loading", absl::Seconds(1)),
                   x->route.endpoint);
    case Endpoint::kReady:
    case Endpoint::kHealth:
    case Endpoint::kKserveReady: return Probe(service_->Readiness(), x->route.endpoint);
    case Endpoint::kMetrics: {
      Reply metrics = JsonReply(service_->RenderMetrics());
      metrics.content_type = "text/plain; version=0.0.4; charset=utf-8";
      return metrics;
    }
    case Endpoint::kVersion: return JsonReply(VersionJson(*service_));
    case Endpoint::kLimits: return JsonReply(LimitsJson(*service_, x->tenant));
    case Endpoint::kModels:
    case Endpoint::kModel:
    case Endpoint::kKserveModel:
    case Endpoint::kKserveModelReady: return Model(x->route);
    case Endpoint::kSimilarity: return Similarity(x, body);
    case Endpoint::kTokenize: return Tokenize(*x, body);
    case Endpoint::kDetokenize: return Detokenize(body);
    case Endpoint::kCompletions:
    case Endpoint::kChat:
    case Endpoint::kKserveGenerate:
    case Endpoint::kKserveGenerateStream: return Generate(x, body);
  }
  return ErrorReply(absl::InternalError("an endpoint without a handler"));
}

Reply Handlers::Probe(const absl::Status& status, Endpoint endpoint) const {
  if (!status.ok()) return ErrorReply(status);
  switch (endpoint) {
    case Endpoint::kKserveLive: return JsonReply("{\"live\":true}");
    case Endpoint::kKserveReady: return JsonReply("{\"ready\":true}");
    default: return JsonReply("{\"status\":\"ok\"}");
  }
}

Reply Handlers::Model(const Route& route) const {
  auto model = service_->FindModel(route.model);
  if (!model.ok()) return ErrorReply(model.status());
  switch (route.endpoint) {
    case Endpoint::kModels: return JsonReply(ModelListJson(**model));
    case Endpoint::kKserveModel: return JsonReply(KserveModelJson(**model));
    case Endpoint::kKserveModelReady: return Probe(service_->Readiness(), Endpoint::kKserveReady);
    default: return JsonReply(ModelJson(**model));
  }
}

Handlers::Result Handlers::Generate(Exchange* x, const std::string& body) const {
  if (absl::Status room = service_->CheckQueue(x->tenant); !room.ok()) {  // before the body is parsed
    x->ticket.Finish(room);
    return ErrorReply(room);
  }
  const Endpoint endpoint = x->route.endpoint;
  const bool kserve = x->route.is_kserve();
  absl::StatusOr<ParsedGeneration> parsed =
      endpoint == Endpoint::kCompletions ? ParseCompletion(body, limits())
      : endpoint == Endpoint::kChat
          ? ParseChatCompletion(body, limits())
          : ParseKserveGenerate(body, limits(), endpoint == Endpoint::kKserveGenerateStream);
  if (!parsed.ok()) {
    x->ticket.Finish(parsed.status());
    return ErrorReply(parsed.status());
  }
  GenerationRequest& request = parsed->request;
  if (kserve) request.model = x->route.model;

  AnswerOptions answer;
  answer.api = kserve ? Api::kKserve : request.is_chat ? Api::kChat : Api::kCompletions;
  answer.id =
      kserve ? parsed->kserve_id : absl::StrCat(request.is_chat ? "chatcmpl-" : "cmpl-", x->head.request_id);
  answer.created = absl::ToUnixSeconds(absl::Now());
  answer.n = static_cast<int>(request.n);
  answer.logprobs = request.logprobs >= 0;
  answer.return_token_ids = request.return_token_ids;
  answer.include_usage = request.include_usage;
  answer.details = parsed->details;
  const bool stream = request.stream;
  std::vector<std::pair<std::string, std::string>> headers;
  AddIgnored(parsed->ignored, &headers);

  absl::StatusOr<std::unique_ptr<Generation>> generation =
      service_->Generate(std::move(request), x->tenant, std::move(x->ticket), x->gone);
  if (!generation.ok()) {
    Reply reply = ErrorReply(generation.status());
    for (auto& header : headers) reply.headers.push_back(std::move(header));
    return reply;
  }
  AddRateLimits(service_->tenants().Remaining(x->tenant), &headers);
  answer.model = (*generation)->model();
  if (answer.return_token_ids) answer.prompts = (*generation)->prompt_token_ids();
  return std::make_unique<GenerationCall>(*std::move(generation), std::move(answer), stream, byte_budget(),
                                          std::move(headers));
}

Handlers::Result Handlers::Similarity(Exchange* x, const std::string& body) const {
  if (absl::Status room = service_->CheckQueue(x->tenant); !room.ok()) {  // before the body is parsed
    x->ticket.Finish(room);
    return ErrorReply(room);
  }
  absl::StatusOr<ParsedSimilarity> parsed = ParseSimilarity(body, limits());
  if (!parsed.ok()) {
    x->ticket.Finish(parsed.status());
    return ErrorReply(parsed.status());
  }
  auto similarity = sessa::Similarity::Start(service_, std::move(parsed->request), x->tenant,
                                             std::move(x->ticket), x->gone);
  std::vector<std::pair<std::string, std::string>> headers;
  AddIgnored(parsed->ignored, &headers);
  if (!similarity.ok()) {
    Reply reply = ErrorReply(similarity.status());
    for (auto& header : headers) reply.headers.push_back(std::move(header));
    return reply;
  }
  AddRateLimits(service_->tenants().Remaining(x->tenant), &headers);
  return std::make_unique<SimilarityCall>(*std::move(similarity), absl::StrCat("sim-", x->head.request_id),
                                          absl::ToUnixSeconds(absl::Now()), std::move(headers));
}

Reply Handlers::Tokenize(const Exchange& x, const std::string& body) const {
  absl::StatusOr<ParsedTokenize> parsed = ParseTokenize(body, limits());
  if (!parsed.ok()) return ErrorReply(parsed.status());
  auto model = service_->FindModel(parsed->model);
  if (!model.ok()) return ErrorReply(model.status());
  std::string text = std::move(parsed->prompt);
  if (parsed->is_chat) {
    absl::StatusOr<std::string> rendered = service_->RenderChat(parsed->model, parsed->chat, x.gone);
    if (!rendered.ok()) return ErrorReply(rendered.status());
    text = *std::move(rendered);
  }
  // A chat template writes its special tokens itself.
  const bool add_special = parsed->add_special_tokens.value_or(!parsed->is_chat);
  absl::StatusOr<std::vector<int32_t>> ids = service_->Tokenize(parsed->model, text, add_special);
  if (!ids.ok()) return ErrorReply(ids.status());
  std::string body_out;
  JsonWriter json(&body_out);
  json.BeginObject().Key("count").Int(static_cast<int64_t>(ids->size()));
  json.Key("max_model_len").Int((*model)->engine->options().max_model_len).Key("tokens").BeginArray();
  for (int32_t id : *ids) json.Int(id);
  json.EndArray().EndObject();
  Reply reply = JsonReply(std::move(body_out));
  AddIgnored(parsed->ignored, &reply.headers);
  return reply;
}

Reply Handlers::Detokenize(const std::string& body) const {
  absl::StatusOr<ParsedDetokenize> parsed = ParseDetokenize(body, limits());
  if (!parsed.ok()) return ErrorReply(parsed.status());
  absl::StatusOr<std::string> text =
      service_->Detokenize(parsed->model, parsed->tokens, parsed->skip_special_tokens);
  if (!text.ok()) return ErrorReply(text.status());
  std::string body_out;
  JsonWriter(&body_out).BeginObject().Key("prompt").String(*text).EndObject();
  Reply reply = JsonReply(std::move(body_out));
  AddIgnored(parsed->ignored, &reply.headers);
  return reply;
}

}  // namespace sessa
