// sessa.v1.Generation on top of server/core: turns messages into core requests and core results into
// messages; all judgement of values is core's. Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/core/service.h"
#include "server/grpc/generate_stream.h"
#include "server/grpc/wakeup_queue.h"
#include "sessa/v1/generation.grpc.pb.h"

namespace sessa {

class GenerationService final : public sessa::v1::Generation::CallbackService {
 public:
  // `service` outlives this. `write_timeout`: what a client may take to read one event.
  GenerationService(sessa::Service* service, int num_threads, absl::Duration write_timeout);
  ~GenerationService() override;

  grpc::ServerWriteReactor<sessa::v1::GenerateReply>* Generate(
      grpc::CallbackServerContext* context, const sessa::v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const sessa::v1::TokenizeRequest* request,
                                     sessa::v1::TokenizeReply* reply) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const sessa::v1::DetokenizeRequest* request,
                                       sessa::v1::DetokenizeReply* reply) override;
  grpc::ServerUnaryReactor* Similarity(grpc::CallbackServerContext* context,
                                       const sessa::v1::SimilarityRequest* request,
                                       sessa::v1::SimilarityReply* reply) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const sessa::v1::GetModelInfoRequest* request,
                                         sessa::v1::ModelInfo* reply) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const sessa::v1::GetLoadRequest* request,
                                    sessa::v1::Load* reply) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context,
                                  const sessa::v1::AbortRequest* request,
                                  sessa::v1::AbortReply* reply) override;

 private:
  // Running streams by (tenant, request id), so that Abort reaches only the caller's own.
  using StreamKey = std::pair<std::string, std::string>;

  // Does `work` on the text pool and ends the call with what it says, unless the client is gone by then or
  // there is no room: `request` stays in memory meanwhile.
  grpc::ServerUnaryReactor* OnTextPool(grpc::CallbackServerContext* context,
                                       const google::protobuf::Message& request,
                                       std::function<absl::Status()> work);
  absl::Status TokenizeText(const sessa::v1::TokenizeRequest& request, sessa::v1::TokenizeReply* reply) const;
  void WatchStreams();

  absl::StatusOr<std::string> Tenant(const grpc::CallbackServerContext& context) const;
  absl::Status TakeRequest(const grpc::CallbackServerContext& context) const;  // of a known tenant

  sessa::Service* const service_;  // qualified: the base class has a Service of its own
  const std::chrono::nanoseconds write_timeout_;
  const std::shared_ptr<WakeupQueue> wakeups_;
  absl::Mutex mutex_;
  absl::flat_hash_map<StreamKey, std::weak_ptr<GenerateStream>> streams_ ABSL_GUARDED_BY(mutex_);
  absl::Notification stop_watching_;
  std::thread watcher_;
};

}  // namespace sessa
