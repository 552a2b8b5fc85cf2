// One Generate call: pulls events from its Generation and writes them, one at a time, as fast as the client
// reads. What a slow client leaves piles up in the Generation's bounded queue, which ends the request; one
// that takes nothing at all, so that not even the end can be told, is found by Watch and the call is
// cancelled. Keeps itself alive until gRPC's OnDone.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/monotonic.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/core/byte_budget.h"
#include "server/core/generation.h"
#include "server/core/service.h"
#include "server/grpc/call_log.h"
#include "server/grpc/wakeup_queue.h"
#include "server/grpc/watcher.h"
#include "sessa/v1/generation.pb.h"

namespace sessa {

class GenerateStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                             public Wakeable,
                             public WatchedCall,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  // `context` lives until OnDone.
  GenerateStream(grpc::CallbackServerContext* context, const Service& service);

  // Whose call it is, for the access log. Before Defer, Start and Reject.
  void SetTenant(const std::string& tenant) { log_.SetTenant(tenant); }

  // The handler returns, and Start or Reject come later, from another thread. `request_lease` is for what
  // gRPC keeps of the request until then and to the call's end.
  void Defer(ByteBudget::Lease request_lease);
  // Once the request is parsed, before Start. Its message may be charged to the lease, as long as it is
  // there.
  void SetRequest(std::string request_id, int num_choices);
  ByteBudget::Lease* request_lease() { return &request_lease_; }  // of who defers, until Start or Reject
  // To be called now and then: gives the call up when it has not ended at `deadline` (and a moment, so that a
  // client that reads is told) or a write has not been taken within `write_timeout`. The generation ends, and
  // with it what the tenant holds, even where gRPC cannot end the write: a connection that takes no bytes at
  // all is closed only when its keepalive fails, within a minute. Thread-safe.
  void Watch(Clock::time_point now) override;
  void SetLimits(Clock::time_point deadline, Clock::duration write_timeout);
  const std::atomic<bool>& aborted() const { return aborted_; }  // by Abort, or as the client went
  // Exactly one of these, once; without Defer before the call's handler returns. `on_done` runs when the call
  // is over.
  void Start(std::unique_ptr<Generation> generation, const std::shared_ptr<WakeupQueue>& wakeups,
             std::function<void()> on_done);
  void Reject(const absl::Status& error);

  // Ends the generation; the stream ends with CANCELLED. Thread-safe.
  void Abort();

  void OnWakeup() override { Pump(); }
  void OnWriteDone(bool ok) override;
  void OnCancel() override { Abort(); }
  void OnDone() override;

 private:
  void Pump();
  void Remember(const Generation& generation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True when reply_ was filled; false when the stream was finished instead.
  bool Fill(GenerationEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Fill(GenerationEvent event, sessa::v1::GenerateReply* reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::CallbackServerContext* const context_;
  CallLog log_;  // written by OnDone
  std::function<void()> on_done_;
  std::shared_ptr<GenerateStream> self_;  // until OnDone

  ByteBudget::Lease request_lease_;

  mutable absl::Mutex mutex_;
  std::string request_id_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point deadline_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::max();
  Clock::duration write_timeout_ ABSL_GUARDED_BY(mutex_) = Clock::duration::max();
  Clock::time_point write_began_ ABSL_GUARDED_BY(mutex_);  // or Finish; while one of them is under way
  bool done_ ABSL_GUARDED_BY(mutex_) = false;              // OnDone: context_ is no more
  absl::Status given_up_ ABSL_GUARDED_BY(mutex_);          // by Watch, why
  std::optional<Usage> usage_ ABSL_GUARDED_BY(mutex_);     // of a generation that is gone
  GenerationTimes times_ ABSL_GUARDED_BY(mutex_);          // likewise
  std::unique_ptr<Generation> generation_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> aborted_{false};  // written under mutex_, maybe before there is a generation
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was called
  absl::Status status_ ABSL_GUARDED_BY(mutex_);    // what Finish was called with
  bool last_written_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<sessa::v1::FinishReason> finish_reasons_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer reply_;  // gRPC's while writing_
};

}  // namespace sessa
