// See generation_call.h.
#include "server/rest/generation_call.h"

#include <optional>
#include <utility>

namespace sessa {
namespace {

std::variant<WholeAnswer, StreamAnswer, ResponsesAnswer, InferAnswer> MakeAnswer(AnswerOptions options,
                                                                                 int num_prompts,
                                                                                 bool stream) {
  if (options.api == Api::kKserveInfer) return InferAnswer(std::move(options));
  if (options.api == Api::kResponses) return ResponsesAnswer(std::move(options), stream);
  if (stream) return StreamAnswer(std::move(options), num_prompts);
  return WholeAnswer(std::move(options), num_prompts);
}

}  // namespace

GenerationCall::GenerationCall(std::unique_ptr<Generation> generation, AnswerOptions options, bool stream,
                               ByteBudget* budget, std::vector<std::pair<std::string, std::string>> headers)
    : generation_(std::move(generation)),
      is_stream_(stream),
      answer_(
          MakeAnswer(std::move(options), static_cast<int>(generation_->prompt_token_ids().size()), stream)),
      lease_(budget, ByteBudget::Kind::kOutput),
      headers_(std::move(headers)) {}

bool GenerationCall::Pull(std::string* out, size_t max_bytes) {
  for (int i = 0; i < kMaxEvents && !ended() && out->size() < max_bytes; ++i) {
    std::optional<GenerationEvent> event = generation_->TryNext();
    if (!event.has_value()) return false;
    if (auto* stream = std::get_if<StreamAnswer>(&answer_)) {
      stream->Add(*event, out);
    } else if (auto* responses = std::get_if<ResponsesAnswer>(&answer_)) {
      responses->Add(*event, out);
      Charge(responses->num_bytes(), [&](const absl::Status& full) { responses->Fail(full, out); });
    } else if (auto* infer = std::get_if<InferAnswer>(&answer_)) {
      infer->Add(*std::move(event));
      Charge(infer->num_bytes(), [&](const absl::Status& full) { infer->Fail(full); });
    } else {
      WholeAnswer& whole = std::get<WholeAnswer>(answer_);
      whole.Add(*std::move(event));
      Charge(whole.num_bytes(), [&](const absl::Status& full) { whole.Fail(full); });
    }
  }
  return !ended();
}

template <typename Fail>
void GenerationCall::Charge(int64_t num_bytes, Fail fail) {
  if (lease_.Resize(num_bytes)) return;
  const absl::Status full = OutOfBytesError(absl::Seconds(1));
  generation_->Abandon(full);
  fail(full);
  lease_.Resize(0);
}

bool GenerationCall::ended() const {
  return std::visit([](const auto& answer) { return answer.ended(); }, answer_);
}

const absl::Status& GenerationCall::status() const {
  return std::visit([](const auto& answer) -> const absl::Status& { return answer.status(); }, answer_);
}

Reply GenerationCall::MakeReply() {
  Reply reply;
  if (is_stream()) {
    reply.content_type = "text/event-stream";
    reply.headers.emplace_back("Cache-Control", "no-cache");
    reply.headers.emplace_back("X-Accel-Buffering", "no");  // a proxy that gathers would undo the streaming
  } else if (status().ok()) {
    if (auto* whole = std::get_if<WholeAnswer>(&answer_)) reply.body = whole->TakeBody();
    if (auto* responses = std::get_if<ResponsesAnswer>(&answer_)) reply.body = responses->TakeBody();
    if (auto* infer = std::get_if<InferAnswer>(&answer_)) infer->Fill(&reply);
    reply.lease = std::move(lease_);
  } else {
    reply = ErrorReply(status());
  }
  for (auto& header : headers_) reply.headers.push_back(std::move(header));
  return reply;
}

}  // namespace sessa
