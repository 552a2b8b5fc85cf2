// See generation_service.h. gRPC's threads do no work on texts: that is the text pool's. A thread looks after
// streams whose clients do not read.
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
constexpr absl::Duration kWatchInterval = absl::Milliseconds(250);

std::string NewRequestId() {
  absl::BitGen random;
  return absl::StrFormat("gen-%016x%016x", absl::Uniform<uint64_t>(random), absl::Uniform<uint64_t>(random));
}

grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::Status TooManyTexts() { return absl::ResourceExhaustedError("too many requests wait to be read"); }

// The time that the client still waits; infinite when it named no deadline.
absl::Duration TimeLeft(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteDuration();
  return absl::FromChrono(deadline) - absl::Now();
}

// What gRPC keeps of a request as long as its call lasts; none where there is no room.
absl::StatusOr<ByteBudget::Lease> Charge(sessa::Service* service, const google::protobuf::Message& request) {
  ByteBudget::Lease lease(&service->byte_budget(), ByteBudget::Kind::kInput);
  if (!lease.Resize(static_cast<int64_t>(request.SpaceUsedLong())))
    return OutOfBytesError(service->options().retry_after);
  return lease;
}

}  // namespace

GenerationService::GenerationService(sessa::Service* service, int num_threads, absl::Duration write_timeout)
    : service_(service),
      write_timeout_(absl::ToChronoNanoseconds(write_timeout)),
      wakeups_(std::make_shared<WakeupQueue>(num_threads)),
      watcher_([this] { WatchStreams(); }) {}

GenerationService::~GenerationService() {
  stop_watching_.Notify();
  watcher_.join();
}

void GenerationService::WatchStreams() {
  while (!stop_watching_.WaitForNotificationWithTimeout(kWatchInterval)) {
    std::vector<std::shared_ptr<GenerateStream>> streams;
    {
      absl::MutexLock lock(&mutex_);
      for (const auto& [key, weak] : streams_) {
        if (auto stream = weak.lock()) streams.push_back(std::move(stream));
      }
    }
    const auto now = GenerateStream::Clock::now();
    for (const auto& stream : streams) stream->Watch(now);
  }
}

grpc::ServerUnaryReactor* GenerationService::OnTextPool(grpc::CallbackServerContext* context,
                                                        const google::protobuf::Message& request,
                                                        std::function<absl::Status()> work) {
  absl::StatusOr<ByteBudget::Lease> lease = Charge(service_, request);
  if (!lease.ok()) return Reply(context, lease.status());
  auto shared_lease = std::make_shared<ByteBudget::Lease>(*std::move(lease));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool posted = service_->text_pool().Post(
      request.ByteSizeLong(), [context, reactor, shared_lease, work = std::move(work)] {
        reactor->Finish(context->IsCancelled() ? grpc::Status::CANCELLED : ToGrpcStatus(work()));
      });
  if (!posted) reactor->Finish(ToGrpcStatus(TooManyTexts()));
  return reactor;
}

absl::StatusOr<std::string> GenerationService::Tenant(const grpc::CallbackServerContext& context) const {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find("authorization");
  if (it == metadata.end()) return service_->Authenticate("");
  return service_->Authenticate(absl::string_view(it->second.data(), it->second.size()));
}

absl::Status GenerationService::TakeRequest(const grpc::CallbackServerContext& context) const {
  absl::StatusOr<std::string> tenant = Tenant(context);
  return tenant.ok() ? service_->tenants().TakeRequest(*tenant) : tenant.status();
}

grpc::ServerWriteReactor<pb::GenerateReply>* GenerationService::Generate(grpc::CallbackServerContext* context,
                                                                         const pb::GenerateRequest* request) {
  RequestTicket ticket = service_->Begin("grpc");
  const std::string id = request->request_id().empty() ? NewRequestId() : request->request_id();
  const int num_choices = static_cast<int>(std::clamp<int64_t>(
      request->sampling().has_n() ? request->sampling().n() : 1, 1, service_->limits().max_n));
  absl::StatusOr<ByteBudget::Lease> lease = Charge(service_, *request);
  auto stream = std::make_shared<GenerateStream>(context, id, num_choices, *service_,
                                                 lease.ok() ? *std::move(lease) : ByteBudget::Lease());
  auto reject = [&](const absl::Status& error) {
    ticket.Finish(error);
    stream->Reject(error);
    return stream.get();
  };

  const absl::StatusOr<std::string> tenant = Tenant(*context);
  if (!tenant.ok()) return reject(tenant.status());
  stream->SetTenant(*tenant);
  if (absl::Status taken = service_->tenants().TakeRequest(*tenant); !taken.ok()) return reject(taken);
  if (absl::Status room = service_->CheckQueue(*tenant); !room.ok()) return reject(room);
  if (!lease.ok()) return reject(lease.status());
  absl::StatusOr<GenerationRequest> core_request = FromProto(*request);
  if (!core_request.ok()) return reject(core_request.status());
  if (id.size() > kMaxRequestIdBytes) return reject(FieldError("request_id", "must have at most 128 bytes"));
  const absl::Duration left = TimeLeft(*context);
  if (left <= absl::ZeroDuration())
    return reject(absl::DeadlineExceededError("the deadline passed before the start"));
  // gRPC clients state how long they wait with each call, so a far deadline is shortened rather than refused.
  if (left != absl::InfiniteDuration())
    core_request->timeout = std::min(left, service_->limits().max_timeout);
  const absl::Duration timeout = core_request->timeout.value_or(service_->limits().default_timeout);
  stream->SetLimits(GenerateStream::Clock::now() + absl::ToChronoNanoseconds(timeout), write_timeout_);

  const StreamKey key(*tenant, id);
  {
    absl::MutexLock lock(&mutex_);
    if (!streams_.emplace(key, stream).second) {
      ticket.Finish(Outcome::kInvalid);
      stream->Reject(FieldError("request_id", "is that of a request that still runs"));
      return stream.get();
    }
  }
  auto forget = [this, key] {
    absl::MutexLock lock(&mutex_);
    streams_.erase(key);
  };
  // std::function copies what it holds: the ticket and the request are shared with it alone.
  auto shared_ticket = std::make_shared<RequestTicket>(std::move(ticket));
  auto shared_request = std::make_shared<GenerationRequest>(*std::move(core_request));
  auto generate = [this, stream, shared_ticket, shared_request, tenant = *tenant, forget] {
    if (stream->aborted()) {
      forget();
      const absl::Status gone = absl::CancelledError("cancelled before its text was looked at");
      shared_ticket->Finish(gone);
      return stream->Reject(gone);
    }
    absl::StatusOr<std::unique_ptr<sessa::Generation>> generation =
        service_->Generate(std::move(*shared_request), tenant, std::move(*shared_ticket));
    if (generation.ok()) return stream->Start(*std::move(generation), wakeups_, forget);
    forget();
    stream->Reject(generation.status());
  };
  stream->Defer();
  if (!service_->text_pool().Post(request->ByteSizeLong(), std::move(generate))) {
    forget();
    const absl::Status full = TooManyTexts();
    shared_ticket->Finish(full);
    stream->Reject(full);
  }
  return stream.get();
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const pb::TokenizeRequest* request,
                                                      pb::TokenizeReply* reply) {
  if (absl::Status taken = TakeRequest(*context); !taken.ok()) return Reply(context, taken);
  return OnTextPool(context, *request, [this, request, reply] { return TokenizeText(*request, reply); });
}

absl::Status GenerationService::TokenizeText(const pb::TokenizeRequest& request,
                                             pb::TokenizeReply* reply) const {
  std::string text = request.text();
  bool add_special_tokens = true;
  switch (request.input_case()) {
    case pb::TokenizeRequest::kText: break;
    case pb::TokenizeRequest::kChat: {
      absl::StatusOr<std::string> rendered = service_->RenderChat(request.model(), FromProto(request.chat()));
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
  absl::StatusOr<std::vector<int32_t>> ids = service_->Tokenize(request.model(), text, add_special_tokens);
  if (!ids.ok()) return ids.status();
  reply->mutable_token_ids()->Add(ids->begin(), ids->end());
  reply->set_max_model_len((*model)->engine->options().max_model_len);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const pb::DetokenizeRequest* request,
                                                        pb::DetokenizeReply* reply) {
  if (absl::Status taken = TakeRequest(*context); !taken.ok()) return Reply(context, taken);
  return OnTextPool(context, *request, [this, request, reply] {
    const std::vector<int64_t> ids(request->token_ids().begin(), request->token_ids().end());
    absl::StatusOr<std::string> text =
        service_->Detokenize(request->model(), ids, request->skip_special_tokens());
    if (text.ok()) reply->set_text(*std::move(text));
    return text.status();
  });
}

grpc::ServerUnaryReactor* GenerationService::Similarity(grpc::CallbackServerContext* context,
                                                        const pb::SimilarityRequest* request,
                                                        pb::SimilarityReply* reply) {
  auto ticket = std::make_shared<RequestTicket>(service_->Begin("grpc"));
  absl::StatusOr<ByteBudget::Lease> lease = Charge(service_, *request);
  auto call = std::make_shared<SimilarityReactor>(reply, CallLog(*context, "Similarity", "", *service_),
                                                  lease.ok() ? *std::move(lease) : ByteBudget::Lease());
  const auto reject = [&](const absl::Status& error) {
    ticket->Finish(error);
    call->Reject(error);
    return call.get();
  };
  const absl::StatusOr<std::string> tenant = Tenant(*context);
  if (!tenant.ok()) return reject(tenant.status());
  call->SetTenant(*tenant);
  if (absl::Status taken = service_->tenants().TakeRequest(*tenant); !taken.ok()) return reject(taken);
  if (absl::Status room = service_->CheckQueue(*tenant); !room.ok()) return reject(room);
  if (!lease.ok()) return reject(lease.status());
  absl::StatusOr<SimilarityRequest> core_request = FromProto(*request);
  if (!core_request.ok()) return reject(core_request.status());
  const absl::Duration left = TimeLeft(*context);
  if (left <= absl::ZeroDuration())
    return reject(absl::DeadlineExceededError("the deadline passed before the start"));
  if (left != absl::InfiniteDuration())
    core_request->timeout = std::min(left, service_->limits().max_timeout);

  auto shared_request = std::make_shared<SimilarityRequest>(*std::move(core_request));
  auto start = [this, call, ticket, shared_request, tenant = *tenant] {
    auto similarity = sessa::Similarity::Start(service_, std::move(*shared_request), tenant,
                                               std::move(*ticket), &call->gone());
    similarity.ok() ? call->Start(*std::move(similarity), wakeups_) : call->Reject(similarity.status());
  };
  call->Defer();
  if (!service_->text_pool().Post(request->ByteSizeLong(), std::move(start))) return reject(TooManyTexts());
  return call.get();
}

grpc::ServerUnaryReactor* GenerationService::GetModelInfo(grpc::CallbackServerContext* context,
                                                          const pb::GetModelInfoRequest* request,
                                                          pb::ModelInfo* reply) {
  if (auto tenant = Tenant(*context); !tenant.ok()) return Reply(context, tenant.status());
  auto model = service_->FindModel(request->model());
  if (!model.ok()) return Reply(context, model.status());
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
  return Reply(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* GenerationService::GetLoad(grpc::CallbackServerContext* context,
                                                     const pb::GetLoadRequest*, pb::Load* reply) {
  if (auto tenant = Tenant(*context); !tenant.ok()) return Reply(context, tenant.status());
  reply->set_ready(service_->Ready());
  reply->set_draining(service_->Ending());
  if (auto model = service_->FindModel(""); model.ok()) {
    const EngineStats stats = (*model)->engine->Stats();
    reply->set_num_running(stats.num_running);
    reply->set_num_waiting(stats.num_waiting);
    reply->set_waiting_tokens(stats.waiting_tokens);
    if (stats.num_pages > 0) {
      reply->set_state_cache_usage(static_cast<double>(stats.num_used_pages) / stats.num_pages);
    }
  }
  return Reply(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* GenerationService::Abort(grpc::CallbackServerContext* context,
                                                   const pb::AbortRequest* request, pb::AbortReply* reply) {
  absl::StatusOr<std::string> tenant = Tenant(*context);
  if (!tenant.ok()) return Reply(context, tenant.status());
  std::shared_ptr<GenerateStream> stream;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = streams_.find(StreamKey(*std::move(tenant), request->request_id()));
    if (it != streams_.end()) stream = it->second.lock();
  }
  reply->set_found(stream != nullptr);
  if (stream != nullptr) stream->Abort();
  return Reply(context, absl::OkStatus());
}

}  // namespace sessa
