// See handlers.h.
#include "server/rest/handlers.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <memory>
#include <new>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/core/access_log.h"
#include "server/core/json_writer.h"
#include "server/core/log.h"
#include "server/core/similarity.h"
#include "server/kserve/describe.h"
#include "server/rest/generation_call.h"
#include "server/rest/rate_limit_headers.h"
#include "server/rest/request_json.h"
#include "server/rest/similarity_call.h"
#include "server/rest/status_json.h"
#include "server/rest/web_page.h"

namespace sessa {
namespace {

using Headers = std::vector<std::pair<std::string, std::string>>;

Api ApiOf(const Route& route, const GenerationRequest& request) {
  if (route.endpoint == Endpoint::kKserveInfer) return Api::kKserveInfer;
  if (route.is_kserve()) return Api::kKserve;
  if (route.endpoint == Endpoint::kResponses) return Api::kResponses;
  return request.is_chat ? Api::kChat : Api::kCompletions;
}

Reply WithHeaders(Reply reply, Headers headers) {
  std::move(headers.begin(), headers.end(), std::back_inserter(reply.headers));
  return reply;
}

void AddIgnored(const std::vector<std::string>& ignored, Headers* headers) {
  if (!ignored.empty()) headers->emplace_back("X-Sessa-Ignored-Fields", IgnoredFieldsHeader(ignored));
}

const char* IdPrefix(Api api) {
  switch (api) {
    case Api::kCompletions: return "cmpl-";
    case Api::kChat: return "chatcmpl-";
    case Api::kResponses: return "resp_";
    case Api::kKserve:
    case Api::kKserveInfer: break;
  }
  return "";
}

AnswerOptions OptionsOf(const Exchange& x, const ParsedGeneration& parsed) {
  const GenerationRequest& request = parsed.request;
  AnswerOptions answer;
  answer.api = ApiOf(x.route, request);
  answer.id = x.route.is_kserve() ? parsed.kserve_id : absl::StrCat(IdPrefix(answer.api), x.head.request_id);
  answer.created = absl::ToUnixSeconds(absl::Now());
  answer.n = static_cast<int>(request.n);
  answer.logprobs = request.logprobs >= 0;
  answer.prompt_logprobs = request.prompt_logprobs >= 0;
  answer.return_token_ids = request.return_token_ids;
  answer.include_usage = request.include_usage;
  answer.continuous_usage = request.continuous_usage;
  answer.details = parsed.details;
  return answer;
}

// Whether a short coded body is a short text as well. Decodes no more of it than that.
bool StaysShort(ContentCoding coding, const std::string& body) {
  const auto charge = [](int64_t) { return true; };
  try {
    std::string decoded;
    return DecodeBody(coding, body, TextPool::kLongBytes, charge, &decoded) != DecodeResult::kTooLarge;
  } catch (const std::bad_alloc&) {
    return true;  // who decodes it in earnest says so
  }
}

}  // namespace

Reply Handlers::Refuse(Exchange* x, const absl::Status& why) {
  x->ticket.Finish(why);
  return ErrorReply(why);
}

Reply Handlers::OutOfBytes(Exchange* x) const {
  return Refuse(x, OutOfBytesError(service_->options().retry_after));
}

void Handlers::HandleText(Exchange* x, std::string body, const std::atomic<bool>& gone,
                          std::function<void(Result)> done) const {
  if (!x->route.is_post) return done(Handle(x, body));
  x->gone = &gone;
  const auto post = [this, x, done](size_t num_bytes, std::function<void()> work) {
    if (service_->text_pool().Post(num_bytes, std::move(work))) return;
    done(Refuse(x, absl::ResourceExhaustedError("too many bodies wait to be read")));
  };
  const size_t num_bytes = body.size();
  const auto shared = std::make_shared<const std::string>(std::move(body));
  auto handle = [this, x, shared, &gone, done] { done(gone ? Reply() : Handle(x, *shared)); };
  if (x->coding == ContentCoding::kIdentity || num_bytes > TextPool::kLongBytes)
    return post(num_bytes, std::move(handle));
  // It may become a long one; who sends a short one does not wait behind books for it.
  post(num_bytes, [x, shared, post, &gone, handle = std::move(handle)] {
    if (gone || StaysShort(x->coding, *shared)) return handle();
    post(TextPool::kLongBytes + 1, handle);
  });
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
    ByteBudget::Lease lease(byte_budget(), ByteBudget::Kind::kInput);
    std::string decoded;
    const bool is_coded = x->coding != ContentCoding::kIdentity && x->route.is_post;
    if (is_coded) {
      if (std::optional<Reply> refused = Decode(x, body, &lease, &decoded)) return *std::move(refused);
    }
    Result result = Dispatch(x, is_coded ? decoded : body);
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
    case Endpoint::kOpenApi: return JsonReply(OpenApiJson());
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
    case Endpoint::kLoad: return JsonReply(LoadJson(*service_));
    case Endpoint::kRouterLoad: return JsonReply(RouterLoadJson(*service_));
    case Endpoint::kRouterServer:
    case Endpoint::kRouterModel:
    case Endpoint::kTokenizerInfo:
    case Endpoint::kModels:
    case Endpoint::kModel:
    case Endpoint::kKserveModel:
    case Endpoint::kKserveModelReady:
    case Endpoint::kKserveConfig:
    case Endpoint::kKserveStatistics: return Model(x->route);
    case Endpoint::kKserveServer: return JsonReply(KserveServerJson(*service_));
    case Endpoint::kKserveIndex: return JsonReply(KserveIndexJson(*service_));
    case Endpoint::kKserveLoad:
      return ErrorReply(400, "unsupported", "The model stays as it is while the server runs.");
    case Endpoint::kTokenize: return Tokenize(*x, body);
    case Endpoint::kDetokenize: return Detokenize(body);
    case Endpoint::kCompletions:
    case Endpoint::kChat:
    case Endpoint::kResponses:
    case Endpoint::kKserveInfer:
    case Endpoint::kKserveGenerate:
    case Endpoint::kKserveGenerateStream:
    case Endpoint::kSimilarity: {
      absl::Status room = service_->CheckQueue(x->tenant);  // before the body is parsed
      if (!room.ok()) return Refuse(x, room);
      return x->route.endpoint == Endpoint::kSimilarity ? Similarity(x, body) : Generate(x, body);
    }
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
  if (absl::Status known = CheckKserveVersion((*model)->name, route.version); !known.ok())
    return ErrorReply(known);
  switch (route.endpoint) {
    case Endpoint::kModels: return JsonReply(ModelListJson(**model));
    case Endpoint::kRouterServer: return JsonReply(RouterServerJson(*service_, **model));
    case Endpoint::kRouterModel: return JsonReply(RouterModelJson(**model));
    case Endpoint::kTokenizerInfo:
      if ((*model)->tokenizer == nullptr) return ErrorReply(404, "not_found", "This model has no tokenizer.");
      return JsonReply((*model)->tokenizer_info);
    case Endpoint::kKserveModel: return JsonReply(KserveModelJson(**model));
    case Endpoint::kKserveConfig: return JsonReply(KserveConfigJson(**model));
    case Endpoint::kKserveStatistics: return JsonReply(KserveStatisticsJson(service_, **model));
    case Endpoint::kKserveModelReady: return Probe(service_->Readiness(), Endpoint::kKserveReady);
    default: return JsonReply(ModelJson(**model));
  }
}

absl::StatusOr<ParsedGeneration> Handlers::Parse(const Exchange& x, const std::string& body,
                                                 ParsedInfer* infer) const {
  if (x.route.is_kserve()) {
    if (absl::Status known = CheckKserveVersion(x.route.model, x.route.version); !known.ok()) return known;
  }
  switch (x.route.endpoint) {
    case Endpoint::kCompletions: return ParseCompletion(body, limits());
    case Endpoint::kChat: return ParseChatCompletion(body, limits());
    case Endpoint::kResponses: return ParseResponses(body, limits());
    case Endpoint::kKserveInfer: break;
    default: return ParseKserveGenerate(body, limits(), x.route.endpoint == Endpoint::kKserveGenerateStream);
  }
  absl::StatusOr<ParsedInfer> read = ParseInfer(body, x.head.kserve_header_length, limits());
  if (!read.ok()) return read.status();
  *infer = *std::move(read);
  ParsedGeneration parsed;
  absl::StatusOr<GenerationRequest> request = ToGeneration(infer->infer, false);
  if (!request.ok()) return request.status();
  parsed.request = *std::move(request);
  return parsed;
}

Handlers::Result Handlers::Generate(Exchange* x, const std::string& body) const {
  ParsedInfer infer;
  absl::StatusOr<ParsedGeneration> parsed = Parse(*x, body, &infer);
  if (!parsed.ok()) return Refuse(x, parsed.status());
  GenerationRequest& request = parsed->request;
  if (x->route.is_kserve()) request.model = x->route.model;
  AnswerOptions answer = OptionsOf(*x, *parsed);
  answer.settings = std::move(parsed->settings);
  answer.infer = std::move(infer);
  const bool stream = request.stream;
  Headers headers;
  AddIgnored(parsed->ignored, &headers);

  absl::StatusOr<std::unique_ptr<Generation>> generation =
      service_->Generate(std::move(request), x->tenant, std::move(x->ticket), x->gone);
  if (!generation.ok()) return WithHeaders(ErrorReply(generation.status()), std::move(headers));
  AddRateLimits(service_->tenants().Remaining(x->tenant), &headers);
  answer.model = (*generation)->model();
  if (answer.return_token_ids) answer.prompts = (*generation)->prompt_token_ids();
  return std::make_unique<GenerationCall>(*std::move(generation), std::move(answer), stream, byte_budget(),
                                          std::move(headers));
}

Handlers::Result Handlers::Similarity(Exchange* x, const std::string& body) const {
  absl::StatusOr<ParsedSimilarity> parsed = ParseSimilarity(body, limits());
  if (!parsed.ok()) return Refuse(x, parsed.status());
  auto similarity = sessa::Similarity::Start(service_, std::move(parsed->request), x->tenant,
                                             std::move(x->ticket), x->gone);
  Headers headers;
  AddIgnored(parsed->ignored, &headers);
  if (!similarity.ok()) return WithHeaders(ErrorReply(similarity.status()), std::move(headers));
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
  absl::StatusOr<std::vector<int32_t>> ids =
      service_->Tokenize(parsed->model, text, add_special, parsed->is_chat ? "messages" : "prompt");
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
