// See health_service.h.
#include "server/grpc/health_service.h"

#include <utility>

namespace sessa {

namespace pb = grpc::health::v1;

// One Watch call; keeps itself alive until OnDone.
class HealthService::Watcher final : public grpc::ServerWriteReactor<Response>,
                                     public std::enable_shared_from_this<Watcher> {
 public:
  explicit Watcher(std::string name) : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  void Begin() { self_ = shared_from_this(); }

  // `last`: and the stream ends.
  void Tell(Status status, bool last) {
    absl::MutexLock lock(&mutex_);
    wanted_ = status;
    last_ = last_ || last;
    Go();
  }
  void OnWriteDone(bool ok) override {
    const std::shared_ptr<Watcher> keep = shared_from_this();  // Finish lets OnDone run on another thread
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    cancelled_ = cancelled_ || !ok;
    Go();
  }
  void OnCancel() override {
    const std::shared_ptr<Watcher> keep = shared_from_this();
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    Go();
  }
  void OnDone() override { const std::shared_ptr<Watcher> last = std::move(self_); }

 private:
  void Go() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    if (!cancelled_ && (!has_written_ || wanted_ != reply_.status())) {
      has_written_ = writing_ = true;
      reply_.set_status(wanted_);
      StartWrite(&reply_);
    } else if (cancelled_ || last_) {
      finished_ = true;
      Finish(cancelled_ ? grpc::Status::CANCELLED
                        : grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
    }
  }

  const std::string name_;
  std::shared_ptr<Watcher> self_;
  absl::Mutex mutex_;
  Status wanted_ ABSL_GUARDED_BY(mutex_) = pb::HealthCheckResponse::UNKNOWN;
  bool has_written_ ABSL_GUARDED_BY(mutex_) = false, writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool last_ ABSL_GUARDED_BY(mutex_) = false, cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  Response reply_;  // gRPC's while it writes
};

HealthService::Status HealthService::Find(const std::string& name) const {
  const auto it = statuses_.find(name);
  return it != statuses_.end() ? it->second : pb::HealthCheckResponse::SERVICE_UNKNOWN;
}

void HealthService::Set(const std::string& name, bool serving) {
  absl::MutexLock lock(&mutex_);
  if (shut_down_) return;
  const Status status = serving ? pb::HealthCheckResponse::SERVING : pb::HealthCheckResponse::NOT_SERVING;
  const auto [it, is_new] = statuses_.try_emplace(name, status);
  if (!is_new && it->second == status) return;
  it->second = status;
  for (auto watcher = watchers_.begin(); watcher != watchers_.end();) {
    const std::shared_ptr<Watcher> alive = watcher->lock();
    if (alive != nullptr && alive->name() == name) alive->Tell(status, false);
    watcher = alive != nullptr ? std::next(watcher) : watchers_.erase(watcher);
  }
}

void HealthService::Shutdown() {
  absl::MutexLock lock(&mutex_);
  shut_down_ = true;
  for (auto& [name, status] : statuses_) status = pb::HealthCheckResponse::NOT_SERVING;
  for (const auto& weak : watchers_) {
    if (const std::shared_ptr<Watcher> watcher = weak.lock()) watcher->Tell(Find(watcher->name()), true);
  }
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context, const Request* request,
                                               Response* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::MutexLock lock(&mutex_);
  reply->set_status(Find(request->service()));
  const bool known = reply->status() != pb::HealthCheckResponse::SERVICE_UNKNOWN;
  reactor->Finish(known ? grpc::Status::OK : grpc::Status(grpc::StatusCode::NOT_FOUND, "no such service"));
  return reactor;
}

grpc::ServerUnaryReactor* HealthService::List(grpc::CallbackServerContext* context,
                                              const pb::HealthListRequest*, pb::HealthListResponse* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, status] : statuses_) (*reply->mutable_statuses())[name].set_status(status);
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<HealthService::Response>* HealthService::Watch(grpc::CallbackServerContext*,
                                                                        const Request* request) {
  auto watcher = std::make_shared<Watcher>(request->service());
  watcher->Begin();
  absl::MutexLock lock(&mutex_);
  watchers_.push_back(watcher);
  watcher->Tell(Find(watcher->name()), shut_down_);
  return watcher.get();
}

}  // namespace sessa
