// See similarity_reactor.h. Finish lets OnDone run on another thread, which may delete this: whoever calls
// End holds a shared_ptr to this meanwhile.
#include "server/grpc/similarity_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/grpc/message.h"
#include "server/grpc/status.h"

namespace sessa {
namespace {

namespace pb = sessa::v1;

void ToProto(const Estimate& estimate, pb::Estimate* out) {
  out->set_value(estimate.value);
  out->set_standard_error(estimate.standard_error);
  out->set_per_token(estimate.per_token);
  out->set_per_token_standard_error(estimate.standard_error_per_token);
}

void ToProto(const SimilarityResult& result, pb::SimilarityReply* out) {
  out->set_model(result.model);
  out->set_seed(result.seed);
  for (int i = 0; i < result.num_texts; ++i) {
    for (int j = i + 1; j < result.num_texts; ++j) {
      pb::Divergences* pair = out->add_pairs();
      pair->set_first(i);
      pair->set_second(j);
      ToProto(result.at(i, j).jeffreys, pair->mutable_distance());
      ToProto(result.at(i, j).p_to_q, pair->mutable_kl_first_second());
      ToProto(result.at(i, j).q_to_p, pair->mutable_kl_second_first());
    }
  }
  out->mutable_usage()->set_prompt_tokens(result.usage.prompt_tokens);
  out->mutable_usage()->set_completion_tokens(result.usage.completion_tokens);
  out->mutable_usage()->set_cached_tokens(result.usage.cached_tokens);
}

}  // namespace

absl::StatusOr<SimilarityRequest> FromProto(const pb::SimilarityRequest& message) {
  SimilarityRequest r;
  r.model = message.model();
  for (const pb::SimilarityText& text : message.input()) {
    switch (text.input_case()) {
      case pb::SimilarityText::kText: r.texts.emplace_back(text.text()); break;
      case pb::SimilarityText::kTokenIds:
        r.texts.emplace_back(
            std::vector<int32_t>(text.token_ids().ids().begin(), text.token_ids().ids().end()));
        break;
      case pb::SimilarityText::INPUT_NOT_SET:
        return FieldError(absl::StrCat("input[", r.texts.size(), "]"),
                          "one of text and token_ids must be set");
    }
  }
  if (message.has_n()) r.num_samples = message.n();
  if (message.has_max_tokens()) r.max_tokens = message.max_tokens();
  if (message.has_seed()) r.seed = message.seed();
  r.ignore_eos = message.ignore_eos();
  if (message.has_add_special_tokens()) r.add_special_tokens = message.add_special_tokens();
  r.priority = message.priority();
  return r;
}

void SimilarityReactor::Start(std::unique_ptr<Similarity> similarity,
                              const std::shared_ptr<WakeupQueue>& wakeups) {
  similarity->SetNotify(
      [weak_wakeups = std::weak_ptr<WakeupQueue>(wakeups), call = std::weak_ptr<Wakeable>(self_)] {
        if (auto wakeups = weak_wakeups.lock()) wakeups->Wake(call);
      });
  {
    absl::MutexLock lock(&mutex_);
    similarity_ = std::move(similarity);
  }
  if (gone_) return OnCancel();  // it came before there was a Similarity
  wakeups->Wake(self_);
}

void SimilarityReactor::Reject(const absl::Status& error) {
  self_ = shared_from_this();
  const std::shared_ptr<SimilarityReactor> keep = self_;
  absl::MutexLock lock(&mutex_);
  End(error);
}

void SimilarityReactor::OnWakeup() {
  const std::shared_ptr<SimilarityReactor> keep = shared_from_this();
  absl::MutexLock lock(&mutex_);
  if (similarity_ == nullptr || finished_) return;
  while (similarity_->Advance(64)) continue;
  if (!similarity_->ended()) return;
  const absl::StatusOr<SimilarityResult>& result = similarity_->result();
  if (result.ok()) {
    pb::SimilarityReply reply;
    ToProto(*result, &reply);
    *reply_ = SerializeMessage(reply);
  }
  End(result.status());
}

void SimilarityReactor::OnCancel() {
  const std::shared_ptr<SimilarityReactor> keep = shared_from_this();
  std::unique_ptr<Similarity> cancelled;  // its end is outside the lock: it may call into the engine
  absl::MutexLock lock(&mutex_);
  gone_ = true;
  if (similarity_ == nullptr || finished_) return;  // Start or Reject comes, or came
  usage_ = similarity_->usage();
  cancelled = std::move(similarity_);
  End(absl::CancelledError("the client left"));
}

void SimilarityReactor::End(const absl::Status& status) {
  if (similarity_ != nullptr) usage_ = similarity_->usage();
  finished_ = true;
  status_ = status;
  Finish(ToGrpcStatus(status));
}

void SimilarityReactor::OnDone() {
  std::unique_ptr<Similarity> similarity;
  {
    absl::MutexLock lock(&mutex_);
    similarity = std::move(similarity_);
    log_.Write(status_, usage_, {});
  }
  similarity.reset();
  const std::shared_ptr<SimilarityReactor> last = std::move(self_);  // deletes this at the end
}

}  // namespace sessa
