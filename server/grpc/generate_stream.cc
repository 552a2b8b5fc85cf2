// See generate_stream.h. Order of locks: mutex_, then what Generation takes inside; gRPC never calls back
// inside StartWrite or Finish on the same thread, so both may be called under mutex_.
#include "server/grpc/generate_stream.h"

#include <optional>
#include <utility>
#include <variant>

#include "server/core/errors.h"
#include "server/grpc/message.h"
#include "server/grpc/status.h"

namespace sessa {
namespace {

namespace pb = sessa::v1;

constexpr std::chrono::seconds kDeadlineSlack(1);

pb::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone: return pb::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kStop: return pb::FINISH_REASON_STOP;
    case FinishReason::kLength: return pb::FINISH_REASON_LENGTH;
  }
  return pb::FINISH_REASON_UNSPECIFIED;
}

void ToProto(const Usage& usage, pb::Usage* out) {
  out->set_prompt_tokens(usage.prompt_tokens);
  out->set_completion_tokens(usage.completion_tokens);
  out->set_cached_tokens(usage.cached_tokens);
}

void ToProto(LogprobEntry entry, pb::TokenLogprob* out) {
  out->set_token_id(entry.id);
  out->set_token(std::move(entry.bytes));
  if (entry.has_logprob) out->set_logprob(entry.logprob);
  out->set_text_offset(entry.text_offset);
  out->set_rank(entry.rank);
  for (TopLogprob& top : entry.top) {
    pb::TopLogprob* best = out->add_top();
    best->set_token_id(top.id);
    best->set_token(std::move(top.bytes));
    best->set_logprob(top.logprob);
  }
}

void ToProto(TextDelta delta, pb::Delta* out) {
  out->set_choice(delta.index);
  out->set_text(std::move(delta.text));
  out->mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
  for (LogprobEntry& entry : delta.logprobs) ToProto(std::move(entry), out->add_logprobs());
  out->set_finish_reason(ToProto(delta.finish));
  out->set_stop_string(std::move(delta.stop_string));
}

}  // namespace

GenerateStream::GenerateStream(grpc::CallbackServerContext* context, const Service& service)
    : context_(context), log_(*context, "Generate", "", service) {}

void GenerateStream::Defer(ByteBudget::Lease request_lease) {
  self_ = shared_from_this();
  request_lease_ = std::move(request_lease);
}

void GenerateStream::SetRequest(std::string request_id, int num_choices) {
  absl::MutexLock lock(&mutex_);
  log_.SetRequestId(request_id);
  request_id_ = std::move(request_id);
  finish_reasons_.assign(num_choices, pb::FINISH_REASON_UNSPECIFIED);
}

void GenerateStream::Start(std::unique_ptr<Generation> generation,
                           const std::shared_ptr<WakeupQueue>& wakeups, std::function<void()> on_done) {
  self_ = shared_from_this();
  on_done_ = std::move(on_done);
  generation->SetNotify(
      [weak_wakeups = std::weak_ptr<WakeupQueue>(wakeups), stream = std::weak_ptr<Wakeable>(self_)] {
        if (auto wakeups = weak_wakeups.lock()) wakeups->Wake(stream);
      });
  {
    absl::MutexLock lock(&mutex_);
    generation_ = std::move(generation);
    if (aborted_) generation_->Cancel();  // by Abort while it was submitted
  }
  Pump();
}

void GenerateStream::Reject(const absl::Status& error) {
  self_ = shared_from_this();
  const std::shared_ptr<GenerateStream> keep = self_;
  absl::MutexLock lock(&mutex_);
  End(error);
}

void GenerateStream::End(const absl::Status& status) {
  finished_ = true;
  write_began_ = Clock::now();
  status_ = status;
  Finish(ToGrpcStatus(status));
}

void GenerateStream::SetLimits(Clock::time_point deadline, Clock::duration write_timeout) {
  absl::MutexLock lock(&mutex_);
  deadline_ = deadline;
  write_timeout_ = write_timeout;
}

void GenerateStream::Watch(Clock::time_point now) {
  std::unique_ptr<Generation> generation;  // its end is outside the lock: it may call into the engine
  absl::MutexLock lock(&mutex_);
  if (done_ || !given_up_.ok()) return;
  const bool stuck = (writing_ || finished_) && now - write_began_ > write_timeout_;
  const bool late = now > deadline_ && now - deadline_ > kDeadlineSlack;
  if (!stuck && !late) return;
  given_up_ = late ? absl::DeadlineExceededError("The request's deadline has passed.")
                   : absl::CancelledError("The client did not read.");
  aborted_ = true;
  context_->TryCancel();  // OnCancel and OnWriteDone come on a thread of gRPC's
  if (generation_ == nullptr) return;
  Remember(*generation_);
  generation = std::move(generation_);
  if (!writing_ && !finished_) End(given_up_);
}

void GenerateStream::Abort() {
  absl::MutexLock lock(&mutex_);
  aborted_ = true;
  if (generation_ != nullptr) generation_->Cancel();
}

void GenerateStream::OnWriteDone(bool ok) {
  const std::shared_ptr<GenerateStream> keep = shared_from_this();
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok && generation_ != nullptr)
      generation_->Cancel();  // the client is gone; the events drain to the end
    if (!finished_ && !given_up_.ok()) {
      End(given_up_);
    } else if (!finished_ && last_written_) {
      End(absl::OkStatus());
    }
  }
  Pump();
}

void GenerateStream::Pump() {
  // Finish lets OnDone run on another thread: this object must outlive the lock below.
  const std::shared_ptr<GenerateStream> keep = shared_from_this();
  absl::MutexLock lock(&mutex_);
  if (writing_ || finished_ || last_written_ || generation_ == nullptr) return;
  std::optional<GenerationEvent> event = generation_->TryNext();
  if (!event.has_value()) return;  // the Generation calls its notify when there is more
  if (!Fill(*std::move(event))) return;
  writing_ = true;
  write_began_ = Clock::now();
  StartWrite(&reply_);
}

bool GenerateStream::Fill(GenerationEvent event) {
  pb::GenerateReply reply;
  if (!Fill(std::move(event), &reply)) return false;
  reply_ = SerializeMessage(reply);
  return true;
}

bool GenerateStream::Fill(GenerationEvent event, pb::GenerateReply* reply) {
  if (auto* prompt = std::get_if<PromptEvent>(&event)) {
    pb::Started* started = reply->mutable_started();
    started->set_request_id(request_id_);
    started->set_model(generation_->model());
    started->set_prompt_tokens(prompt->num_tokens);
    started->set_cached_tokens(prompt->num_cached_tokens);
    return true;
  }
  if (auto* scores = std::get_if<PromptLogprobs>(&event)) {
    for (LogprobEntry& entry : scores->tokens)
      ToProto(std::move(entry), reply->mutable_prompt_logprobs()->add_tokens());
    return true;
  }
  if (auto* delta = std::get_if<TextDelta>(&event)) {
    if (delta->finish != FinishReason::kNone) finish_reasons_[delta->index] = ToProto(delta->finish);
    ToProto(std::move(*delta), reply->mutable_delta());
    return true;
  }
  const GenerationEnd& end = std::get<GenerationEnd>(event);
  if (!end.status.ok()) {
    End(end.status);
    return false;
  }
  pb::Finished* finished = reply->mutable_finished();
  finished->mutable_finish_reasons()->Add(finish_reasons_.begin(), finish_reasons_.end());
  ToProto(end.usage, finished->mutable_usage());
  last_written_ = true;
  return true;
}

void GenerateStream::Remember(const Generation& generation) {
  usage_ = generation.usage();
  times_ = generation.times();
}

void GenerateStream::OnDone() {
  std::unique_ptr<Generation> generation;
  {
    absl::MutexLock lock(&mutex_);
    done_ = true;
    generation = std::move(generation_);
    if (generation != nullptr) Remember(*generation);
    log_.Write(status_, usage_, times_);
  }
  generation.reset();  // outside the lock: it may call into the engine
  if (on_done_) on_done_();
  const std::shared_ptr<GenerateStream> last =
      std::move(self_);  // deletes this at the end, unless another thread looks
}

}  // namespace sessa
