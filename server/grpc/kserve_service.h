// KServe v2's inference.GRPCInferenceService on top of server/core: what it says of the model is what REST
// says, what is generated goes through the same parsing of parameters. Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "inference/inference.grpc.pb.h"
#include "server/core/service.h"
#include "server/grpc/kserve_call.h"

namespace sessa {

// All methods take and give bytes (message.h).
template <typename Base>
using RawKserve = inference::GRPCInferenceService::WithRawCallbackMethod_ServerLive<
    inference::GRPCInferenceService::WithRawCallbackMethod_ServerReady<
        inference::GRPCInferenceService::WithRawCallbackMethod_ModelReady<
            inference::GRPCInferenceService::WithRawCallbackMethod_ServerMetadata<
                inference::GRPCInferenceService::WithRawCallbackMethod_ModelMetadata<
                    inference::GRPCInferenceService::WithRawCallbackMethod_ModelInfer<
                        inference::GRPCInferenceService::WithRawCallbackMethod_ModelStreamInfer<
                            inference::GRPCInferenceService::WithRawCallbackMethod_ModelConfig<
                                inference::GRPCInferenceService::WithRawCallbackMethod_ModelStatistics<
                                    inference::GRPCInferenceService::WithRawCallbackMethod_RepositoryIndex<
                                        Base>>>>>>>>>>;

class KserveService final : public RawKserve<inference::GRPCInferenceService::Service> {
 public:
  // `service` and `watcher` outlive this.
  KserveService(sessa::Service* service, std::shared_ptr<WakeupQueue> wakeups, CallWatcher* watcher,
                absl::Duration write_timeout)
      : service_(service),
        wakeups_(std::move(wakeups)),
        watcher_(watcher),
        write_timeout_(absl::ToChronoNanoseconds(write_timeout)) {}

  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  using Unary = grpc::ServerUnaryReactor;
  Unary* ServerLive(Context* context, const Bytes* request, Bytes* reply) override;
  Unary* ServerReady(Context* context, const Bytes* request, Bytes* reply) override;
  Unary* ModelReady(Context* context, const Bytes* request, Bytes* reply) override;
  Unary* ServerMetadata(Context* context, const Bytes* request, Bytes* reply) override;
  Unary* ModelMetadata(Context* context, const Bytes* request, Bytes* reply) override;
  Unary* ModelInfer(Context* context, const Bytes* request, Bytes* reply) override;
  grpc::ServerBidiReactor<Bytes, Bytes>* ModelStreamInfer(Context* context) override;
  Unary* ModelConfig(Context* context, const Bytes* request, Bytes* reply) override;
  Unary* ModelStatistics(Context* context, const Bytes* request, Bytes* reply) override;
  Unary* RepositoryIndex(Context* context, const Bytes* request, Bytes* reply) override;

 private:
  // The request of a tenant that `room` is OK for; ticket and log have its outcome whatever comes.
  absl::StatusOr<StartedInfer> Start(const Bytes& bytes, const std::string& tenant, absl::Duration time_left,
                                     bool stream, const absl::Status& room, RequestTicket ticket,
                                     CallLog log);
  // Counts and logs a refusal.
  static absl::Status Refuse(const absl::Status& why, RequestTicket* ticket, CallLog* log);

  sessa::Service* const service_;  // qualified: the base class has a Service of its own
  const std::shared_ptr<WakeupQueue> wakeups_;
  CallWatcher* const watcher_;
  const std::chrono::nanoseconds write_timeout_;
};

}  // namespace sessa
