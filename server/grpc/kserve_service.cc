// See kserve_service.h.
#include "server/grpc/kserve_service.h"

#include <algorithm>
#include <utility>

#include "server/core/errors.h"
#include "server/grpc/call.h"
#include "server/grpc/kserve_convert.h"
#include "server/kserve/describe.h"
#include "server/kserve/tensors.h"

namespace sessa {
namespace {

namespace pb = inference;

absl::StatusOr<std::shared_ptr<const ServedModel>> Find(const sessa::Service& service,
                                                        const std::string& name, const std::string& version) {
  auto model = service.FindModel(name);
  if (!model.ok()) return model.status();
  if (absl::Status known = CheckKserveVersion((*model)->name, version); !known.ok()) return known;
  return model;
}

void Describe(absl::Span<const KserveTensorSpec> specs,
              google::protobuf::RepeatedPtrField<pb::ModelMetadataResponse::TensorMetadata>* out) {
  for (const KserveTensorSpec& spec : specs) {
    auto* tensor = out->Add();
    tensor->set_name(spec.name);
    tensor->set_datatype(spec.datatype);
    tensor->add_shape(spec.dim);
  }
}

pb::DataType ConfigType(const KserveTensorSpec& spec) {
  pb::DataType type = pb::TYPE_INVALID;
  pb::DataType_Parse(spec.config_type, &type);
  return type;
}

void ToProto(const KserveStatistics::Duration& duration, pb::StatisticDuration* out) {
  out->set_count(duration.count);
  out->set_ns(duration.ns);
}

// Answers a probe: who asks needs no key, as with REST's.
template <typename Reply>
grpc::ServerUnaryReactor* Probe(grpc::CallbackServerContext* context, const Reply& message,
                                grpc::ByteBuffer* reply) {
  *reply = SerializeMessage(message);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* KserveService::ServerLive(Context* context, const Bytes*, Bytes* reply) {
  pb::ServerLiveResponse message;
  message.set_live(service_->Live());
  return Probe(context, message, reply);
}

grpc::ServerUnaryReactor* KserveService::ServerReady(Context* context, const Bytes*, Bytes* reply) {
  pb::ServerReadyResponse message;
  message.set_ready(service_->Ready());
  return Probe(context, message, reply);
}

grpc::ServerUnaryReactor* KserveService::ModelReady(Context* context, const Bytes* request, Bytes* reply) {
  return AnswerNow<pb::ModelReadyRequest, pb::ModelReadyResponse>(
      service_, context, request, reply, [this](const std::string&, const auto& message, auto* out) {
        auto model = Find(*service_, message.name(), message.version());
        out->set_ready(model.ok() && service_->Ready());
        return absl::IsUnavailable(model.status()) ? absl::OkStatus() : model.status();
      });
}

grpc::ServerUnaryReactor* KserveService::ServerMetadata(Context* context, const Bytes* request,
                                                        Bytes* reply) {
  return AnswerNow<pb::ServerMetadataRequest, pb::ServerMetadataResponse>(
      service_, context, request, reply, [this](const std::string&, const auto&, auto* out) {
        out->set_name("sessa");
        out->set_version(service_->options().version);
        for (const char* extension : KserveExtensions()) out->add_extensions(extension);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* KserveService::ModelMetadata(Context* context, const Bytes* request, Bytes* reply) {
  return AnswerNow<pb::ModelMetadataRequest, pb::ModelMetadataResponse>(
      service_, context, request, reply, [this](const std::string&, const auto& message, auto* out) {
        auto model = Find(*service_, message.name(), message.version());
        if (!model.ok()) return model.status();
        out->set_name((*model)->name);
        out->add_versions(kKserveVersion);
        out->set_platform("sessa");
        Describe(KserveInputs(), out->mutable_inputs());
        Describe(KserveOutputs(), out->mutable_outputs());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* KserveService::ModelConfig(Context* context, const Bytes* request, Bytes* reply) {
  return AnswerNow<pb::ModelConfigRequest, pb::ModelConfigResponse>(
      service_, context, request, reply, [this](const std::string&, const auto& message, auto* out) {
        auto model = Find(*service_, message.name(), message.version());
        if (!model.ok()) return model.status();
        pb::ModelConfig* config = out->mutable_config();
        config->set_name((*model)->name);
        config->set_platform("sessa");
        config->set_backend("sessa");
        for (const KserveTensorSpec& spec : KserveInputs()) {
          pb::ModelInput* input = config->add_input();
          input->set_name(spec.name);
          input->set_data_type(ConfigType(spec));
          input->add_dims(spec.dim);
          input->set_optional(true);
        }
        for (const KserveTensorSpec& spec : KserveOutputs()) {
          pb::ModelOutput* output = config->add_output();
          output->set_name(spec.name);
          output->set_data_type(ConfigType(spec));
          output->add_dims(spec.dim);
        }
        config->mutable_model_transaction_policy()->set_decoupled(true);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* KserveService::ModelStatistics(Context* context, const Bytes* request,
                                                         Bytes* reply) {
  return AnswerNow<pb::ModelStatisticsRequest, pb::ModelStatisticsResponse>(
      service_, context, request, reply, [this](const std::string&, const auto& message, auto* out) {
        auto model = Find(*service_, message.name(), message.version());
        if (!model.ok()) return model.status();
        const KserveStatistics statistics = StatisticsOf(service_);
        pb::ModelStatistics* stats = out->add_model_stats();
        stats->set_name((*model)->name);
        stats->set_version(kKserveVersion);
        stats->set_inference_count(statistics.success.count);
        stats->set_execution_count(statistics.success.count);
        pb::InferStatistics* infer = stats->mutable_inference_stats();
        ToProto(statistics.success, infer->mutable_success());
        ToProto(statistics.fail, infer->mutable_fail());
        ToProto(statistics.queue, infer->mutable_queue());
        ToProto(statistics.prefill, infer->mutable_compute_input());
        ToProto(statistics.decode, infer->mutable_compute_infer());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* KserveService::RepositoryIndex(Context* context, const Bytes* request,
                                                         Bytes* reply) {
  return AnswerNow<pb::RepositoryIndexRequest, pb::RepositoryIndexResponse>(
      service_, context, request, reply, [this](const std::string&, const auto& message, auto* out) {
        auto model = service_->FindModel("");
        const absl::Status ready = service_->Readiness();
        if (!model.ok() || (message.ready() && !ready.ok())) return absl::OkStatus();
        pb::RepositoryIndexResponse::ModelIndex* index = out->add_models();
        index->set_name((*model)->name);
        index->set_version(kKserveVersion);
        index->set_state(ready.ok() ? "READY" : "UNAVAILABLE");
        index->set_reason(std::string(ready.message()));
        return absl::OkStatus();
      });
}

absl::Status KserveService::Refuse(const absl::Status& why, RequestTicket* ticket, CallLog* log) {
  ticket->Finish(why);
  log->Write(why, std::nullopt, {});
  return why;
}

absl::StatusOr<StartedInfer> KserveService::Start(const Bytes& bytes, const std::string& tenant,
                                                  absl::Duration time_left, bool stream,
                                                  const absl::Status& room, RequestTicket ticket,
                                                  CallLog log) {
  const auto fail = [&](const absl::Status& status) { return Refuse(status, &ticket, &log); };
  log.SetTenant(tenant);
  if (!room.ok()) return fail(room);
  ByteBudget::Lease lease(&service_->byte_budget(), ByteBudget::Kind::kInput);
  pb::ModelInferRequest message;
  if (absl::Status parsed = ParseMessage(service_, bytes, &lease, &message); !parsed.ok())
    return fail(parsed);
  log.SetRequestId(message.id());
  auto model = Find(*service_, message.model_name(), message.model_version());
  if (!model.ok()) return fail(model.status());
  absl::StatusOr<KserveInfer> infer = FromProto(message);
  if (!infer.ok()) return fail(infer.status());
  absl::StatusOr<GenerationRequest> request = ToGeneration(*infer, stream);
  if (!request.ok()) return fail(request.status());
  if (time_left <= absl::ZeroDuration())
    return fail(absl::DeadlineExceededError("the deadline passed before the start"));
  if (time_left != absl::InfiniteDuration())
    request->timeout = std::min(time_left, request->timeout.value_or(service_->limits().max_timeout));
  message.Clear();
  StartedInfer started;
  started.id = std::move(infer->id);
  started.outputs = std::move(infer->outputs);
  auto generation = service_->Generate(*std::move(request), tenant, std::move(ticket));
  if (!generation.ok()) return fail(generation.status());  // the ticket has its outcome
  started.generation = *std::move(generation);
  started.log = std::make_shared<CallLog>(std::move(log));
  return started;
}

grpc::ServerUnaryReactor* KserveService::ModelInfer(Context* context, const Bytes* request, Bytes* reply) {
  if (!request->Valid()) return new RefusedCall<grpc::ServerUnaryReactor>(NoMessage());
  RequestTicket ticket = service_->Begin("kserve");
  CallLog log(*context, "ModelInfer", "", *service_);
  auto call = std::make_shared<InferCall>(service_, wakeups_, reply);
  const absl::StatusOr<std::string> tenant = TenantOf(service_, *context);
  if (tenant.ok()) log.SetTenant(*tenant);
  absl::StatusOr<ByteBudget::Lease> lease =
      tenant.ok() ? Admit(service_, *tenant, *request) : absl::StatusOr<ByteBudget::Lease>(tenant.status());
  if (!lease.ok()) {
    call->Reject(Refuse(lease.status(), &ticket, &log));
    return call.get();
  }
  // std::function copies what it holds: the ticket is shared with it alone.
  auto shared_ticket = std::make_shared<RequestTicket>(std::move(ticket));
  call->Begin(request, *std::move(lease), log,
              [this, tenant = *tenant, left = TimeLeft(*context), shared_ticket](
                  const Bytes& bytes, CallLog log, const absl::Status& room) {
                return Start(bytes, tenant, left, false, room, std::move(*shared_ticket), std::move(log));
              });
  return call.get();
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* KserveService::ModelStreamInfer(
    Context* context) {
  const absl::StatusOr<std::string> tenant = TenantOf(service_, *context);
  const absl::Time deadline = MonotonicNow() + TimeLeft(*context);
  auto start = [this, tenant, deadline](const Bytes& bytes, CallLog log,
                                        const absl::Status& room) -> absl::StatusOr<StartedInfer> {
    absl::Status status = service_->tenants().TakeRequest(*tenant);
    status.Update(room);
    if (status.ok()) status = service_->CheckQueue(*tenant);
    return Start(bytes, *tenant, deadline - MonotonicNow(), true, status, service_->Begin("kserve"),
                 std::move(log));
  };
  auto stream = std::make_shared<InferStream>(service_, context, wakeups_, write_timeout_, std::move(start));
  if (!tenant.ok()) {
    RequestTicket ticket = service_->Begin("kserve");
    CallLog log(*context, "ModelStreamInfer", "", *service_);
    stream->Reject(Refuse(tenant.status(), &ticket, &log));
    return stream.get();
  }
  watcher_->Add(stream);
  stream->Begin();
  return stream.get();
}

}  // namespace sessa
