// One Generate call: pulls events from its Generation and writes them, one at a time, as fast as the client
// reads. What a slow client leaves piles up in the Generation's bounded queue, which ends the request:
// nothing waits here for it. Keeps itself alive until gRPC's OnDone.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/monotonic.h"
#include "grpcpp/support/server_callback.h"
#include "server/core/access_log.h"
#include "server/core/generation.h"
#include "server/grpc/wakeup_queue.h"
#include "sessa/v1/generation.pb.h"

namespace sessa {

class GenerateStream final : public grpc::ServerWriteReactor<sessa::v1::GenerateReply>,
                             public Wakeable,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  GenerateStream(std::string request_id, int num_choices, AccessLogFormat access_log);

  // The handler returns, and Start or Reject come later, from another thread.
  void Defer() { self_ = shared_from_this(); }
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
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True when reply_ was filled; false when the stream was finished instead.
  bool Fill(GenerationEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string request_id_;
  const AccessLogFormat access_log_;
  const absl::Time start_ = MonotonicNow();
  std::function<void()> on_done_;
  std::shared_ptr<GenerateStream> self_;  // until OnDone

  absl::Mutex mutex_;
  std::unique_ptr<Generation> generation_ ABSL_GUARDED_BY(mutex_);
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;  // maybe before there is a generation
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was called
  absl::Status status_ ABSL_GUARDED_BY(mutex_);    // what Finish was called with
  bool last_written_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<sessa::v1::FinishReason> finish_reasons_ ABSL_GUARDED_BY(mutex_);
  sessa::v1::GenerateReply reply_;  // gRPC's while writing_
};

}  // namespace sessa
