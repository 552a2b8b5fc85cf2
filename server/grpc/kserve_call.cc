// See kserve_call.h. Order of locks: mutex_, then what Generation takes inside; gRPC never calls back inside
// StartRead, StartWrite or Finish on the same thread, so they may be called under mutex_.
#include "server/grpc/kserve_call.h"

#include <utility>
#include <variant>

#include "server/core/errors.h"
#include "server/grpc/call.h"
#include "server/grpc/kserve_convert.h"

namespace sessa {
namespace {

// Wakes `call` when the generation has news.
template <typename Call>
void Notify(Generation* generation, const std::shared_ptr<WakeupQueue>& wakeups,
            const std::shared_ptr<Call>& call) {
  generation->SetNotify(
      [weak_wakeups = std::weak_ptr<WakeupQueue>(wakeups), weak = std::weak_ptr<Wakeable>(call)] {
        if (auto wakeups = weak_wakeups.lock()) wakeups->Wake(weak);
      });
}

void Log(StartedInfer* infer, const absl::Status& status) {
  if (infer->generation == nullptr || infer->log == nullptr) return;
  infer->log->Write(status, infer->generation->usage(), infer->generation->times());
}

}  // namespace

void InferCall::Begin(const grpc::ByteBuffer* request, ByteBudget::Lease request_lease, const CallLog& log,
                      const StartInfer& start) {
  self_ = shared_from_this();
  request_lease_ = std::move(request_lease);
  auto work = [self = self_, request, log, start] {
    absl::StatusOr<StartedInfer> infer = start(*request, log, absl::OkStatus());
    infer.ok() ? self->Start(*std::move(infer)) : self->Reject(infer.status());
  };
  if (service_->text_pool().Post(request->Length(), std::move(work))) return;
  Reject(start(*request, log, TooManyTexts()).status());
}

void InferCall::Reject(const absl::Status& error) {
  self_ = shared_from_this();
  const std::shared_ptr<InferCall> keep = self_;
  absl::MutexLock lock(&mutex_);
  finished_ = true;
  status_ = error;
  Finish(ToGrpcStatus(error));
}

void InferCall::Start(StartedInfer infer) {
  Notify(infer.generation.get(), wakeups_, self_);
  {
    absl::MutexLock lock(&mutex_);
    infer_ = std::move(infer);
    if (cancelled_) infer_.generation->Cancel();
  }
  Pump();
}

void InferCall::Pump() {
  const std::shared_ptr<InferCall> keep = shared_from_this();
  absl::MutexLock lock(&mutex_);
  if (finished_ || infer_.generation == nullptr) return;
  while (std::optional<GenerationEvent> event = infer_.generation->TryNext()) {
    if (auto* delta = std::get_if<TextDelta>(&*event)) {
      num_bytes_ += static_cast<int64_t>(delta->text.size() + 8 * delta->token_ids.size());
      answer_.Add(std::move(*delta));
      if (lease_.Resize(num_bytes_)) continue;
      status_ = OutOfBytesError(service_->options().retry_after);
      infer_.generation->Abandon(status_);
    } else if (auto* end = std::get_if<GenerationEnd>(&*event)) {
      status_ = end->status;
      if (status_.ok())
        *reply_ =
            SerializeMessage(ToProto(infer_.generation->model(), infer_.id, answer_.Take(infer_.outputs)));
    } else {
      continue;
    }
    finished_ = true;
    return Finish(ToGrpcStatus(status_));
  }
}

void InferCall::OnCancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (infer_.generation != nullptr) infer_.generation->Cancel();
}

void InferCall::OnDone() {
  StartedInfer infer;
  {
    absl::MutexLock lock(&mutex_);
    infer = std::move(infer_);
    Log(&infer, status_);
  }
  infer.generation.reset();  // outside the lock: it may call into the engine
  const std::shared_ptr<InferCall> last = std::move(self_);
}

void InferStream::Begin() {
  self_ = shared_from_this();
  StartRead(&request_);
}

void InferStream::Reject(const absl::Status& error) {
  self_ = shared_from_this();
  const std::shared_ptr<InferStream> keep = self_;
  absl::MutexLock lock(&mutex_);
  End(error);
}

void InferStream::End(const absl::Status& status) {
  state_ = State::kEnded;
  write_began_ = Clock::now();
  Finish(ToGrpcStatus(status));
}

void InferStream::ReadNext() {
  if (cancelled_) return End(absl::CancelledError("the client has left"));
  state_ = State::kReading;
  request_lease_ = ByteBudget::Lease();
  StartRead(&request_);
}

void InferStream::OnReadDone(bool ok) {
  const std::shared_ptr<InferStream> keep = shared_from_this();
  {
    absl::MutexLock lock(&mutex_);
    // All requests are there and answered, since the next is only read then.
    if (!ok || cancelled_)
      return End(cancelled_ ? absl::CancelledError("the client has left") : absl::OkStatus());
    state_ = State::kStarting;
  }
  const CallLog log(*context_, "ModelStreamInfer", "", *service_);  // of this request: its time begins here
  absl::StatusOr<ByteBudget::Lease> lease = ChargeBytes(service_, request_);
  if (!lease.ok()) return Started(start_infer_(request_, log, lease.status()));
  request_lease_ = *std::move(lease);
  auto work = [self = keep, log] {
    self->Started(self->start_infer_(self->request_, log, absl::OkStatus()));
  };
  if (!service_->text_pool().Post(request_.Length(), std::move(work)))
    Started(start_infer_(request_, log, TooManyTexts()));
}

void InferStream::Started(absl::StatusOr<StartedInfer> infer) {
  const std::shared_ptr<InferStream> keep = shared_from_this();
  if (infer.ok()) Notify(infer->generation.get(), wakeups_, keep);
  {
    absl::MutexLock lock(&mutex_);
    state_ = State::kRunning;
    answer_ = {};
    if (!infer.ok()) {
      infer_ = {};
      return cancelled_ ? End(infer.status()) : Write(infer.status(), true);
    }
    infer_ = *std::move(infer);
    if (cancelled_) infer_.generation->Cancel();
  }
  Pump();
}

void InferStream::Pump() {
  const std::shared_ptr<InferStream> keep = shared_from_this();
  std::unique_ptr<Generation> ended;  // its end is outside the lock: it may call into the engine
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kRunning || writing_) return;
  if (infer_.generation == nullptr) return ReadNext();  // the last answer is written
  while (std::optional<GenerationEvent> event = infer_.generation->TryNext()) {
    if (auto* delta = std::get_if<TextDelta>(&*event)) {
      answer_.Add(std::move(*delta));
      if (answer_.empty()) continue;
      return Write(absl::OkStatus(), answer_.finished());
    }
    if (auto* end = std::get_if<GenerationEnd>(&*event)) {
      const absl::Status status = end->status;
      Log(&infer_, status);
      ended = std::move(infer_.generation);
      if (cancelled_) return End(status.ok() ? absl::CancelledError("the client has left") : status);
      return status.ok() ? ReadNext() : Write(status, true);
    }
  }
}

void InferStream::Write(const absl::Status& error, bool final) {
  inference::ModelStreamInferResponse message;
  if (!error.ok()) {
    message.set_error_message(std::string(error.message()));
    message.mutable_infer_response()->set_id(infer_.id);
  } else {
    *message.mutable_infer_response() =
        ToProto(infer_.generation->model(), infer_.id, answer_.Take(infer_.outputs));
    (*message.mutable_infer_response()->mutable_parameters())["triton_final_response"].set_bool_param(final);
  }
  reply_ = SerializeMessage(message);
  writing_ = true;
  write_began_ = Clock::now();
  StartWrite(&reply_);
}

void InferStream::OnWriteDone(bool ok) {
  const std::shared_ptr<InferStream> keep = shared_from_this();
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
    if (cancelled_ && infer_.generation != nullptr)
      infer_.generation->Cancel();  // the events drain to the end
  }
  Pump();
}

void InferStream::Watch(Clock::time_point now) {
  std::unique_ptr<Generation> generation;
  absl::MutexLock lock(&mutex_);
  const bool waits = writing_ || state_ == State::kEnded;
  if (done_ || !waits || now - write_began_ <= write_timeout_) return;
  cancelled_ = true;
  Log(&infer_, absl::CancelledError("The client did not read."));
  generation = std::move(infer_.generation);  // nothing of it is held for a client that does not read
  context_->TryCancel();                      // OnWriteDone comes on a thread of gRPC's
}

void InferStream::OnCancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (infer_.generation != nullptr) infer_.generation->Cancel();
}

void InferStream::OnDone() {
  StartedInfer infer;
  {
    absl::MutexLock lock(&mutex_);
    done_ = true;
    infer = std::move(infer_);
    Log(&infer, absl::CancelledError("the client has left"));
  }
  infer.generation.reset();
  const std::shared_ptr<InferStream> last = std::move(self_);
}

}  // namespace sessa
