// See generation_service.h. gRPC's threads do no work on texts: that is the text pool's.
#include "server/grpc/generation_service.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_format.h"
#include "kernels/tensor.h"
#include "server/grpc/convert.h"
#include "server/grpc/similarity_reactor.h"
#include "server/grpc/status.h"
#include "server/tokenizer/chat_template.h"

namespace sessa {
namespace {

namespace pb = sessa::v1;

constexpr size_t kMaxRequestIdBytes = 128;

std::string NewRequestId() {
  absl::BitGen random;
  return absl::StrFormat("gen-%016x%016x", absl::Uniform<uint64_t>(random), absl::Uniform<uint64_t>(random));
}

void FillLoad(const sessa::Service& service, pb::Load* load) {
  load->set_ready(service.Ready());
  load->set_draining(service.Ending());
  if (auto model = service.FindModel(""); model.ok()) {
    const EngineStats stats = (*model)->engine->Stats();
    load->set_num_running(stats.num_running);
    load->set_num_waiting(stats.num_waiting);
    load->set_waiting_tokens(stats.waiting_tokens);
    load->set_state_cache_usage(stats.state_cache_usage());
  }
}

}  // namespace

GenerationService::GenerationService(sessa::Service* service, std::shared_ptr<WakeupQueue> wakeups,
                                     CallWatcher* watcher, absl::Duration write_timeout)
    : service_(service),
      write_timeout_(absl::ToChronoNanoseconds(write_timeout)),
      wakeups_(std::move(wakeups)),
      watcher_(watcher) {}

template <typename Call>
void GenerationService::Open(const grpc::CallbackServerContext& context, const grpc::ByteBuffer* request,
                             const std::shared_ptr<Call>& call, StartOf<Call> start) {
  // std::function copies what it holds: the ticket is shared with it alone.
  const auto ticket = std::make_shared<RequestTicket>(service_->Begin("grpc"));
  const auto reject = [&](const absl::Status& error) {
    ticket->Finish(error);
    call->Reject(error);
  };
  const absl::StatusOr<std::string> tenant = TenantOf(service_, context);
  if (!tenant.ok()) return reject(tenant.status());
  call->SetTenant(*tenant);
  absl::StatusOr<ByteBudget::Lease> lease = Admit(service_, *tenant, *request);
  if (!lease.ok()) return reject(lease.status());
  const absl::Duration left = TimeLeft(context);
  if (left <= absl::ZeroDuration())
    return reject(absl::DeadlineExceededError("the deadline passed before the start"));
  call->Defer(*std::move(lease));
  auto work = [this, call, ticket, request, tenant = *tenant, left, start] {
    (this->*start)(call, *request, tenant, left, std::move(*ticket));
  };
  if (!service_->text_pool().Post(request->Length(), std::move(work))) reject(TooManyTexts());
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationService::Generate(grpc::CallbackServerContext* context,
                                                                        const grpc::ByteBuffer* request) {
  if (!request->Valid()) return new RefusedCall<grpc::ServerWriteReactor<grpc::ByteBuffer>>(NoMessage());
  auto stream = std::make_shared<GenerateStream>(context, *service_);
  Open(*context, request, stream, &GenerationService::StartStream);
  return stream.get();
}

void GenerationService::StartStream(const std::shared_ptr<GenerateStream>& stream,
                                    const grpc::ByteBuffer& bytes, const std::string& tenant,
                                    absl::Duration time_left, RequestTicket ticket) {
  const auto reject = [&](const absl::Status& error) {
    ticket.Finish(error);
    stream->Reject(error);
  };
  if (stream->aborted()) return reject(absl::CancelledError("cancelled before its text was looked at"));
  pb::GenerateRequest request;
  if (absl::Status parsed = ParseMessage(service_, bytes, stream->request_lease(), &request); !parsed.ok())
    return reject(parsed);
  const std::string id = request.request_id().empty() ? NewRequestId() : request.request_id();
  if (id.size() > kMaxRequestIdBytes) return reject(FieldError("request_id", "must have at most 128 bytes"));
  stream->SetRequest(
      id, static_cast<int>(std::clamp<int64_t>(request.sampling().has_n() ? request.sampling().n() : 1, 1,
                                               service_->limits().max_n)));
  absl::StatusOr<GenerationRequest> core_request = FromProto(request, service_->limits());
  if (!core_request.ok()) return reject(core_request.status());
  request.Clear();
  stream->request_lease()->Resize(static_cast<int64_t>(bytes.Length()));
  // gRPC clients state how long they wait with each call, so a far deadline is shortened rather than refused.
  if (time_left != absl::InfiniteDuration())
    core_request->timeout = std::min(time_left, service_->limits().max_timeout);
  const absl::Duration timeout = core_request->timeout.value_or(service_->limits().default_timeout);
  stream->SetLimits(GenerateStream::Clock::now() + absl::ToChronoNanoseconds(timeout), write_timeout_);
  watcher_->Add(stream);

  const StreamKey key(tenant, id);
  {
    absl::ReleasableMutexLock lock(&mutex_);
    if (!streams_.emplace(key, stream).second) {
      lock.Release();
      return reject(FieldError("request_id", "is that of a request that still runs"));
    }
  }
  auto forget = [this, key] {
    absl::MutexLock lock(&mutex_);
    streams_.erase(key);
  };
  absl::StatusOr<std::unique_ptr<sessa::Generation>> generation =
      service_->Generate(*std::move(core_request), tenant, std::move(ticket), &stream->aborted());
  if (generation.ok()) return stream->Start(*std::move(generation), wakeups_, forget);
  forget();
  stream->Reject(generation.status());
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* reply) {
  return AnswerOnTextPool<pb::TokenizeRequest, pb::TokenizeReply>(
      service_, context, request, reply,
      [this](const std::string&, const auto& message, auto* out) { return TokenizeText(message, out); });
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* reply) {
  return AnswerOnTextPool<pb::DetokenizeRequest, pb::DetokenizeReply>(
      service_, context, request, reply,
      [this](const std::string&, const auto& message, auto* out) { return DetokenizeIds(message, out); });
}

grpc::ServerUnaryReactor* GenerationService::Similarity(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* reply) {
  if (!request->Valid()) return new RefusedCall<grpc::ServerUnaryReactor>(NoMessage());
  auto call = std::make_shared<SimilarityReactor>(reply, CallLog(*context, "Similarity", "", *service_));
  Open(*context, request, call, &GenerationService::StartSimilarity);
  return call.get();
}

void GenerationService::StartSimilarity(const std::shared_ptr<SimilarityReactor>& call,
                                        const grpc::ByteBuffer& bytes, const std::string& tenant,
                                        absl::Duration time_left, RequestTicket ticket) {
  const auto reject = [&](const absl::Status& error) {
    ticket.Finish(error);
    call->Reject(error);
  };
  pb::SimilarityRequest request;
  if (absl::Status parsed = ParseMessage(service_, bytes, call->request_lease(), &request); !parsed.ok())
    return reject(parsed);
  absl::StatusOr<SimilarityRequest> core_request = FromProto(request);
  if (!core_request.ok()) return reject(core_request.status());
  request.Clear();
  call->request_lease()->Resize(static_cast<int64_t>(bytes.Length()));
  if (time_left != absl::InfiniteDuration())
    core_request->timeout = std::min(time_left, service_->limits().max_timeout);
  auto similarity =
      sessa::Similarity::Start(service_, *std::move(core_request), tenant, std::move(ticket), &call->gone());
  similarity.ok() ? call->Start(*std::move(similarity), wakeups_) : call->Reject(similarity.status());
}

grpc::ServerUnaryReactor* GenerationService::GetModelInfo(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* reply) {
  return AnswerNow<pb::GetModelInfoRequest, pb::ModelInfo>(
      service_, context, request, reply,
      [this](const std::string&, const auto& message, auto* out) { return DescribeModel(message, out); });
}

grpc::ServerUnaryReactor* GenerationService::GetLoad(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* reply) {
  return AnswerNow<pb::GetLoadRequest, pb::Load>(service_, context, request, reply,
                                                 [this](const std::string&, const auto&, pb::Load* load) {
                                                   FillLoad(*service_, load);
                                                   return absl::OkStatus();
                                                 });
}

grpc::ServerUnaryReactor* GenerationService::Abort(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) {
  return AnswerNow<pb::AbortRequest, pb::AbortReply>(
      service_, context, request, reply, [this](const std::string& tenant, const auto& message, auto* out) {
        return AbortStream(tenant, message, out);
      });
}

absl::Status GenerationService::TokenizeText(const pb::TokenizeRequest& request,
                                             pb::TokenizeReply* reply) const {
  std::string text = request.text();
  bool add_special_tokens = true;
  switch (request.input_case()) {
    case pb::TokenizeRequest::kText: break;
    case pb::TokenizeRequest::kChat: {
      absl::StatusOr<Chat> chat = FromProto(request.chat(), service_->limits());
      if (!chat.ok()) return chat.status();
      absl::StatusOr<std::string> rendered = service_->RenderChat(request.model(), *chat);
      if (!rendered.ok()) return rendered.status();
      text = *std::move(rendered);
      add_special_tokens = false;  // the template writes them
      break;
    }
    case pb::TokenizeRequest::INPUT_NOT_SET: return FieldError("input", "one of text and chat must be set");
  }
  if (request.has_add_special_tokens()) add_special_tokens = request.add_special_tokens();
  auto model = service_->FindModel(request.model());
  if (!model.ok()) return model.status();
  absl::StatusOr<std::vector<int32_t>> ids =
      service_->Tokenize(request.model(), text, add_special_tokens, request.has_chat() ? "messages" : "text");
  if (!ids.ok()) return ids.status();
  reply->mutable_token_ids()->Add(ids->begin(), ids->end());
  reply->set_max_model_len((*model)->engine->options().max_model_len);
  return absl::OkStatus();
}

absl::Status GenerationService::DetokenizeIds(const pb::DetokenizeRequest& request,
                                              pb::DetokenizeReply* reply) const {
  const std::vector<int64_t> ids(request.token_ids().begin(), request.token_ids().end());
  absl::StatusOr<std::string> text =
      service_->Detokenize(request.model(), ids, request.skip_special_tokens());
  if (text.ok()) reply->set_text(*std::move(text));
  return text.status();
}

absl::Status GenerationService::DescribeModel(const pb::GetModelInfoRequest& request,
                                              pb::ModelInfo* reply) const {
  auto model = service_->FindModel(request.model());
  if (!model.ok()) return model.status();
  const ModelConfig& config = (*model)->engine->config();
  const EngineOptions& options = (*model)->engine->options();
  reply->set_name((*model)->name);
  reply->set_server_version(service_->options().version);
  reply->set_vocab_size(config.vocab_size);
  reply->set_hidden_size(config.hidden_size);
  reply->set_num_layers(config.num_layers);
  reply->set_num_heads(config.num_heads);
  reply->set_num_kv_heads(config.num_kv_heads);
  reply->set_max_model_len(options.max_model_len);
  reply->mutable_eos_token_ids()->Add(config.eos_token_ids.begin(), config.eos_token_ids.end());
  reply->set_weight_dtype(Name(options.weight_dtype));
  reply->set_state_dtype(Name(options.state_dtype));
  reply->set_page_size(options.page_size);
  reply->set_num_pages((*model)->engine->Stats().num_pages);
  reply->set_tensor_parallel_size(options.tensor_parallel_size);
  reply->set_has_tokenizer((*model)->tokenizer != nullptr);
  if (const ChatTemplate* chat = (*model)->chat_template.get(); chat != nullptr) {
    reply->set_has_chat_template(chat->status().ok());
    reply->set_chat_template_error(std::string(chat->status().message()));
  }
  return absl::OkStatus();
}

absl::Status GenerationService::AbortStream(const std::string& tenant, const pb::AbortRequest& request,
                                            pb::AbortReply* reply) {
  std::shared_ptr<GenerateStream> stream;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = streams_.find(StreamKey(tenant, request.request_id()));
    if (it != streams_.end()) stream = it->second.lock();
  }
  reply->set_found(stream != nullptr);
  if (stream != nullptr) stream->Abort();
  return absl::OkStatus();
}

}  // namespace sessa
