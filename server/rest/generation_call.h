// One generation request that core has accepted: its Generation with the answer that its events become. See
// call.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "server/core/generation.h"
#include "server/rest/answer.h"
#include "server/rest/call.h"
#include "server/rest/http_message.h"
#include "server/rest/infer_answer.h"
#include "server/rest/responses_answer.h"

namespace sessa {

class GenerationCall final : public Call {
 public:
  // `budget` outlives this: a whole answer is charged while it is gathered and, by its reply, written.
  GenerationCall(std::unique_ptr<Generation> generation, AnswerOptions options, bool stream,
                 ByteBudget* budget, std::vector<std::pair<std::string, std::string>> headers);

  bool is_stream() const override { return is_stream_; }
  void SetNotify(std::function<void()> notify) override { generation_->SetNotify(std::move(notify)); }
  bool Pull(std::string* out, size_t max_bytes) override;
  bool ended() const override;
  const absl::Status& status() const override;
  Usage usage() const override { return generation_->usage(); }
  GenerationTimes times() const override { return generation_->times(); }
  Reply MakeReply() override;

 private:
  // `num_bytes` are held now; calls `fail` with the reason where there is no room.
  template <typename Fail>
  void Charge(int64_t num_bytes, Fail fail);

  const std::unique_ptr<Generation> generation_;
  const bool is_stream_;
  std::variant<WholeAnswer, StreamAnswer, ResponsesAnswer, InferAnswer> answer_;
  ByteBudget::Lease lease_;
  std::vector<std::pair<std::string, std::string>> headers_;
};

}  // namespace sessa
