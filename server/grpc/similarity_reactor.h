// One Similarity call: goes on with its Similarity whenever the engine has news, and replies at its end.
// Keeps itself alive until gRPC's OnDone.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/monotonic.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/core/byte_budget.h"
#include "server/core/similarity.h"
#include "server/grpc/call_log.h"
#include "server/grpc/wakeup_queue.h"
#include "sessa/v1/generation.pb.h"

namespace sessa {

// INVALID_ARGUMENT for a text that is neither text nor token ids.
absl::StatusOr<SimilarityRequest> FromProto(const sessa::v1::SimilarityRequest& message);

class SimilarityReactor final : public grpc::ServerUnaryReactor,
                                public Wakeable,
                                public std::enable_shared_from_this<SimilarityReactor> {
 public:
  // `reply` lives until OnDone.
  SimilarityReactor(grpc::ByteBuffer* reply, CallLog log) : reply_(reply), log_(std::move(log)) {}
  // Whose call it is, for the access log. Before Defer, Start and Reject.
  void SetTenant(const std::string& tenant) { log_.SetTenant(tenant); }

  // The handler returns, and Start or Reject come later, from another thread. `request_lease` is for what
  // gRPC keeps of the request until then and to the call's end.
  void Defer(ByteBudget::Lease request_lease) {
    self_ = shared_from_this();
    request_lease_ = std::move(request_lease);
  }
  ByteBudget::Lease* request_lease() { return &request_lease_; }  // of who defers, until Start or Reject
  // Exactly one of these, once; Start after Defer, Reject also before the call's handler returns.
  void Start(std::unique_ptr<Similarity> similarity, const std::shared_ptr<WakeupQueue>& wakeups);
  void Reject(const absl::Status& error);
  const std::atomic<bool>& gone() const { return gone_; }  // the client left

  void OnWakeup() override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::ByteBuffer* const reply_;
  CallLog log_;  // written by OnDone
  ByteBudget::Lease request_lease_;
  std::shared_ptr<SimilarityReactor> self_;  // until OnDone
  std::atomic<bool> gone_{false};

  absl::Mutex mutex_;
  std::unique_ptr<Similarity> similarity_ ABSL_GUARDED_BY(mutex_);  // null once ended
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;                   // Finish was called
  absl::Status status_ ABSL_GUARDED_BY(mutex_);                     // what with
  std::optional<Usage> usage_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sessa
