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
  // `budget` outlives this: a whole answer is charged while it is gathered and, by its reply, written.
  GenerationCall(std::unique_ptr<Generation> generation, AnswerOptions options, bool stream,
                 ByteBudget* budget, std::vector<std::pair<std::string, std::string>> headers);

  bool is_stream() const { return std::holds_alternative<StreamAnswer>(answer_); }
  void SetNotify(std::function<void()> notify) { generation_->SetNotify(std::move(notify)); }

  // Takes events that are ready; a stream appends their bytes to `out`. It stops soon after `max_bytes`, or
  // kMaxEvents: so long does no other connection wait. False: there is nothing more now, the notification
  // tells when there is.
  bool Pull(std::string* out, size_t max_bytes);
  bool ended() const;
  const absl::Status& status() const;  // Requires: ended()
  Usage usage() const { return generation_->usage(); }

  // The head of a stream's reply, or the whole reply. Requires: is_stream() or ended().
  Reply MakeReply();

 private:
  static constexpr int kMaxEvents = 64;  // an echo's with 20 log-probabilities take some 20 us each

  const std::unique_ptr<Generation> generation_;
  std::variant<WholeAnswer, StreamAnswer> answer_;
  ByteBudget::Lease lease_;
  std::vector<std::pair<std::string, std::string>> headers_;
};

}  // namespace sessa
