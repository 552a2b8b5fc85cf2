// One generation request that core has accepted: its Generation with the answer that its events become. Not
// thread-safe; the connection's strand owns it. Destroying it cancels what still runs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "server/core/generation.h"
#include "server/rest/answer.h"
#include "server/rest/http_message.h"

namespace sessa {

class GenerationCall {
 public:
  GenerationCall(std::unique_ptr<Generation> generation, AnswerOptions options, bool stream,
                 std::vector<std::pair<std::string, std::string>> headers);

  bool is_stream() const { return std::holds_alternative<StreamAnswer>(answer_); }
  void SetNotify(std::function<void()> notify) { generation_->SetNotify(std::move(notify)); }

  // Takes the events that are ready; a stream appends their bytes to `out` and stops soon after `max_bytes`:
  // call again when those are written. When it took less, the notification tells of more.
  void Pull(std::string* out, size_t max_bytes);
  bool ended() const;
  const absl::Status& status() const;  // Requires: ended()
  Usage usage() const { return generation_->usage(); }

  // The head of a stream's reply, or the whole reply. Requires: is_stream() or ended().
  Reply MakeReply();

 private:
  const std::unique_ptr<Generation> generation_;
  std::variant<WholeAnswer, StreamAnswer> answer_;
  std::vector<std::pair<std::string, std::string>> headers_;
};

}  // namespace sessa
