// The Generation that Service hands out; see generation.h for the contract. The reader's state: one Choice
// for each prompt and choice, finished exactly once, and one end for each prompt's engine request.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/monotonic.h"
#include "server/core/byte_budget.h"
#include "server/core/event_queue.h"
#include "server/core/generation.h"
#include "server/core/generation_request.h"
#include "server/core/prompt_echo.h"
#include "server/core/service.h"
#include "server/core/text_stream.h"
#include "server/tokenizer/detokenizer.h"

namespace sessa {

class GenerationImpl final : public Generation {
 public:
  // `service` outlives this. `ids` are the prompts' engine requests, whose sinks fill `queue`. `prompt_lease`
  // is for the raw log-probabilities of echoed prompts.
  GenerationImpl(Service* service, std::shared_ptr<const ServedModel> model, GenerationRequest request,
                 std::vector<std::vector<int32_t>> prompts, std::shared_ptr<EventQueue> queue,
                 std::vector<RequestId> ids, absl::Time deadline, Tenants::Pass pass, RequestTicket ticket,
                 ByteBudget::Lease prompt_lease);
  ~GenerationImpl() override;

  std::optional<GenerationEvent> TryNext() override;
  void SetNotify(std::function<void()> notify) override { queue_->SetNotify(std::move(notify)); }
  void Cancel() override;
  void Abandon(const absl::Status& why) override;
  const std::vector<std::vector<int32_t>>& prompt_token_ids() const override { return prompts_; }
  const std::string& model() const override { return model_->name; }
  Usage usage() const override { return usage_; }
  GenerationTimes times() const override { return times_; }

 private:
  struct Choice {
    std::unique_ptr<Detokenizer> detokenizer;  // null: no tokenizer
    std::unique_ptr<StopMatcher> stops;
    int64_t code_points = 0;  // of the choice's text so far, held back or not
    int64_t num_tokens = 0;
    bool finished = false;
  };

  void HandlePrompt(int prompt_index, PromptInfo info);
  void HandleToken(int prompt_index, const TokenUpdate& update);
  void HandleEnd(const RequestEnd& end);
  void HandleEcho();
  // What the client is told, and what is counted, of the engine's end.
  absl::Status Explain(const absl::Status& end) const;
  bool DeadlinePassed() const;
  void LeaveTenant();
  // Its queue reached a bound; a whole answer's is read as fast as can be, only the budget can end it.
  bool slow_reader() const { return request_.stream && queue_->overflowed(); }
  void Finish();

  Service* const service_;
  const std::shared_ptr<const ServedModel> model_;
  const GenerationRequest request_;
  const std::vector<std::vector<int32_t>> prompts_;
  const std::shared_ptr<EventQueue> queue_;
  const std::vector<RequestId> ids_;
  const absl::Time deadline_;
  Tenants::Pass pass_;
  RequestTicket ticket_;

  std::vector<Choice> choices_;  // [prompts * n]
  ByteBudget::Lease prompt_lease_;
  std::optional<PromptEcho> echo_;  // under way; its choices' tokens come after it
  int echo_prompt_ = 0;
  size_t num_echoes_left_;
  std::deque<GenerationEvent> ready_;
  Usage usage_;
  const absl::Time start_ = MonotonicNow();
  GenerationTimes times_;
  size_t num_ended_ = 0;  // of ids_
  bool done_ = false;     // GenerationEnd was made
  bool any_length_ = false;
  absl::Status error_;  // the first prompt's that failed
};

}  // namespace sessa
