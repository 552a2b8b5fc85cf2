// See generation_call.h.
#include "server/rest/generation_call.h"

#include <optional>
#include <utility>

namespace sessa {
namespace {

std::variant<WholeAnswer, StreamAnswer> MakeAnswer(AnswerOptions options, int num_prompts, bool stream) {
  if (stream) return StreamAnswer(std::move(options), num_prompts);
  return WholeAnswer(std::move(options), num_prompts);
}

}  // namespace

GenerationCall::GenerationCall(std::unique_ptr<Generation> generation, AnswerOptions options, bool stream,
                               ByteBudget* budget, std::vector<std::pair<std::string, std::string>> headers)
    : generation_(std::move(generation)),
      answer_(
          MakeAnswer(std::move(options), static_cast<int>(generation_->prompt_token_ids().size()), stream)),
      lease_(budget, ByteBudget::Kind::kOutput),
      headers_(std::move(headers)) {}

bool GenerationCall::Pull(std::string* out, size_t max_bytes) {
  auto* stream = std::get_if<StreamAnswer>(&answer_);
  for (int i = 0; i < kMaxEvents && !ended() && out->size() < max_bytes; ++i) {
    std::optional<GenerationEvent> event = generation_->TryNext();
    if (!event.has_value()) return false;
    if (stream != nullptr) {
      stream->Add(*event, out);
      continue;
    }
    WholeAnswer& whole = std::get<WholeAnswer>(answer_);
    whole.Add(*std::move(event));
    if (!lease_.Resize(whole.num_bytes())) {
      const absl::Status full = OutOfBytesError(absl::Seconds(1));
      generation_->Abandon(full);
      whole.Fail(full);
      lease_.Resize(0);
    }
  }
  return !ended();
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
  } else if (auto& answer = std::get<WholeAnswer>(answer_); answer.status().ok()) {
    reply.body = answer.TakeBody();
    reply.lease = std::move(lease_);
  } else {
    reply = ErrorReply(answer.status());
  }
  for (auto& header : headers_) reply.headers.push_back(std::move(header));
  return reply;
}

}  // namespace sessa
