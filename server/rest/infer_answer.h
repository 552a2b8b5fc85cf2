// A Generation's events as the tensors of KServe's POST .../infer. Not thread-safe; one request each.
#pragma once

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "server/core/generation.h"
#include "server/rest/answer.h"
#include "server/rest/http_message.h"

namespace sessa {

class InferAnswer {
 public:
  explicit InferAnswer(AnswerOptions options) : options_(std::move(options)) {}

  void Add(GenerationEvent event) {
    if (auto* delta = std::get_if<TextDelta>(&event)) {
      num_bytes_ += static_cast<int64_t>(delta->text.size() + 8 * delta->token_ids.size());
      answer_.Add(std::move(*delta));
    } else if (auto* end = std::get_if<GenerationEnd>(&event)) {
      ended_ = true;
      status_ = end->status;
      usage_ = end->usage;
    }
  }
  // Ends it with an error that is not the Generation's.
  void Fail(absl::Status status) {
    ended_ = true;
    status_ = std::move(status);
  }
  bool ended() const { return ended_; }
  const absl::Status& status() const { return status_; }  // Requires: ended()
  const Usage& usage() const { return usage_; }
  int64_t num_bytes() const { return num_bytes_; }
  // Body and headers. Requires: ended(), status().ok().
  void Fill(Reply* reply) {
    InferReply infer = InferJson(options_.infer, options_.model, answer_.Take(options_.infer.infer.outputs));
    reply->body = absl::Cord(std::move(infer.body));
    if (infer.header_length < 0) return;
    reply->content_type = "application/octet-stream";
    reply->headers.emplace_back("Inference-Header-Content-Length", std::to_string(infer.header_length));
  }

 private:
  const AnswerOptions options_;
  KserveAnswer answer_;
  int64_t num_bytes_ = 0;
  bool ended_ = false;
  absl::Status status_;
  Usage usage_;
};

}  // namespace sessa
