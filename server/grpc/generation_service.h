// sessa.v1.Generation on top of server/core: turns messages into core requests and core results into
// messages; all judgement of values is core's. Thread-safe.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/core/service.h"
#include "server/grpc/call.h"
#include "server/grpc/generate_stream.h"
#include "server/grpc/similarity_reactor.h"
#include "server/grpc/wakeup_queue.h"
#include "server/grpc/watcher.h"
#include "sessa/v1/generation.grpc.pb.h"

namespace sessa {

// All methods take and give bytes (message.h): the key is asked for before anything is parsed.
template <typename Base>
using RawGeneration = sessa::v1::Generation::WithRawCallbackMethod_Generate<
    sessa::v1::Generation::WithRawCallbackMethod_Tokenize<
        sessa::v1::Generation::WithRawCallbackMethod_Detokenize<
            sessa::v1::Generation::WithRawCallbackMethod_Similarity<
                sessa::v1::Generation::WithRawCallbackMethod_GetModelInfo<
                    sessa::v1::Generation::WithRawCallbackMethod_GetLoad<
                        sessa::v1::Generation::WithRawCallbackMethod_Abort<Base>>>>>>>;

class GenerationService final : public RawGeneration<sessa::v1::Generation::Service> {
 public:
  // `service` and `watcher` outlive this. `write_timeout`: what a client may take to read one event.
  GenerationService(sessa::Service* service, std::shared_ptr<WakeupQueue> wakeups, CallWatcher* watcher,
                    absl::Duration write_timeout);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* Similarity(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* reply) override;

 private:
  // Running streams by (tenant, request id), so that Abort reaches only the caller's own.
  using StreamKey = std::pair<std::string, std::string>;

  // What a call that Open has let in does on the text pool.
  template <typename Call>
  using StartOf = void (GenerationService::*)(const std::shared_ptr<Call>& call,
                                              const grpc::ByteBuffer& request, const std::string& tenant,
                                              absl::Duration time_left, RequestTicket ticket);
  // How every generation opens: who calls, and whether there is room and time for it; then `start`.
  template <typename Call>
  void Open(const grpc::CallbackServerContext& context, const grpc::ByteBuffer* request,
            const std::shared_ptr<Call>& call, StartOf<Call> start);
  void StartStream(const std::shared_ptr<GenerateStream>& stream, const grpc::ByteBuffer& request,
                   const std::string& tenant, absl::Duration time_left, RequestTicket ticket);
  void StartSimilarity(const std::shared_ptr<SimilarityReactor>& call, const grpc::ByteBuffer& request,
                       const std::string& tenant, absl::Duration time_left, RequestTicket ticket);
  absl::Status TokenizeText(const sessa::v1::TokenizeRequest& request, sessa::v1::TokenizeReply* reply) const;
  absl::Status DetokenizeIds(const sessa::v1::DetokenizeRequest& request,
                             sessa::v1::DetokenizeReply* reply) const;
  absl::Status DescribeModel(const sessa::v1::GetModelInfoRequest& request,
                             sessa::v1::ModelInfo* reply) const;
  absl::Status AbortStream(const std::string& tenant, const sessa::v1::AbortRequest& request,
                           sessa::v1::AbortReply* reply);

  sessa::Service* const service_;  // qualified: the base class has a Service of its own
  const std::chrono::nanoseconds write_timeout_;
  const std::shared_ptr<WakeupQueue> wakeups_;
  CallWatcher* const watcher_;
  absl::Mutex mutex_;
  absl::flat_hash_map<StreamKey, std::weak_ptr<GenerateStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sessa
