// Running calls of KServe's ModelInfer and ModelStreamInfer: they pull the events of a Generation as
// GenerateStream does. Each keeps itself alive until gRPC's OnDone. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/core/byte_budget.h"
#include "server/core/generation.h"
#include "server/core/service.h"
#include "server/grpc/call_log.h"
#include "server/grpc/wakeup_queue.h"
#include "server/grpc/watcher.h"
#include "server/kserve/tensors.h"

namespace sessa {

// A request that core has taken.
struct StartedInfer {
  std::unique_ptr<Generation> generation;
  std::string id;
  std::vector<std::string> outputs;
  std::shared_ptr<CallLog> log;  // written at its end
};

// Makes one of a request's bytes, on the text pool; what it needs beside them is its own. Where `room` is not
// OK the call has none for them, and the request is only counted and logged.
using StartInfer = std::function<absl::StatusOr<StartedInfer>(const grpc::ByteBuffer& request, CallLog log,
                                                              const absl::Status& room)>;

class InferCall final : public grpc::ServerUnaryReactor,
                        public Wakeable,
                        public std::enable_shared_from_this<InferCall> {
 public:
  InferCall(Service* service, std::shared_ptr<WakeupQueue> wakeups, grpc::ByteBuffer* reply)
      : service_(service),
        wakeups_(std::move(wakeups)),
        reply_(reply),
        lease_(&service->byte_budget(), ByteBudget::Kind::kOutput) {}

  // The request's bytes are charged to `request_lease` until the call's end. Posts the start to the text
  // pool.
  void Begin(const grpc::ByteBuffer* request, ByteBudget::Lease request_lease, const CallLog& log,
             const StartInfer& start);
  void Reject(const absl::Status& error);

  void OnWakeup() override { Pump(); }
  void OnCancel() override;
  void OnDone() override;

 private:
  void Start(StartedInfer infer);
  void Pump();

  Service* const service_;
  const std::shared_ptr<WakeupQueue> wakeups_;
  grpc::ByteBuffer* const reply_;
  std::shared_ptr<InferCall> self_;
  ByteBudget::Lease request_lease_;
  absl::Mutex mutex_;
  ByteBudget::Lease lease_ ABSL_GUARDED_BY(mutex_);
  StartedInfer infer_ ABSL_GUARDED_BY(mutex_);
  KserveAnswer answer_ ABSL_GUARDED_BY(mutex_);
  int64_t num_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false, finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

class InferStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                          public Wakeable,
                          public WatchedCall,
                          public std::enable_shared_from_this<InferStream> {
 public:
  // `context` lives until OnDone.
  InferStream(Service* service, grpc::CallbackServerContext* context, std::shared_ptr<WakeupQueue> wakeups,
              Clock::duration write_timeout, StartInfer start)
      : service_(service),
        context_(context),
        wakeups_(std::move(wakeups)),
        write_timeout_(write_timeout),
        start_infer_(std::move(start)) {}

  void Begin();
  void Reject(const absl::Status& error);

  void Watch(Clock::time_point now) override;
  void OnWakeup() override { Pump(); }
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // Where it stands between the requests that come: kReading, kStarting (on the text pool), kRunning, kEnded
  // (Finish was called).
  enum class State { kReading, kStarting, kRunning, kEnded };

  void Started(absl::StatusOr<StartedInfer> infer);
  void Pump();
  void Write(const absl::Status& error, bool final) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Service* const service_;
  grpc::CallbackServerContext* const context_;
  const std::shared_ptr<WakeupQueue> wakeups_;
  const Clock::duration write_timeout_;
  const StartInfer start_infer_;
  std::shared_ptr<InferStream> self_;
  grpc::ByteBuffer request_;  // gRPC's while it reads
  ByteBudget::Lease request_lease_;

  absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kReading;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false, cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;  // OnDone: context_ is no more
  Clock::time_point write_began_ ABSL_GUARDED_BY(mutex_);
  StartedInfer infer_ ABSL_GUARDED_BY(mutex_);
  KserveAnswer answer_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer reply_;  // gRPC's while it writes
};

}  // namespace sessa
