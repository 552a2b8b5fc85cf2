// From raw engine events to text events; see generation.h.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "server/core/generation_impl.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

// A gRPC client's own timer ends the call at the deadline too, and its cancellation may come a little before
// ours.
constexpr absl::Duration kDeadlineSlack = absl::Milliseconds(50);

}  // namespace

GenerationImpl::GenerationImpl(Service* service, std::shared_ptr<const ServedModel> model,
                               GenerationRequest request, std::vector<std::vector<int32_t>> prompts,
                               std::shared_ptr<EventQueue> queue, std::vector<RequestId> ids,
                               absl::Time deadline, Tenants::Pass pass, RequestTicket ticket)
    : service_(service),
      model_(std::move(model)),
      request_(std::move(request)),
      prompts_(std::move(prompts)),
      queue_(std::move(queue)),
      ids_(std::move(ids)),
      deadline_(deadline),
      pass_(std::move(pass)),
      ticket_(std::move(ticket)) {
  choices_.resize(prompts_.size() * request_.n);
  for (Choice& choice : choices_) {
    if (model_->tokenizer != nullptr) {
      choice.detokenizer =
          std::make_unique<Detokenizer>(model_->tokenizer.get(), request_.skip_special_tokens);
    }
    choice.stops = std::make_unique<StopMatcher>(request_.stop, request_.include_stop_str_in_output);
  }
}

GenerationImpl::~GenerationImpl() {
  service_->watchdog_.Forget(queue_);
  queue_->Close();
  if (done_) return;
  Cancel();
  ticket_.Finish(queue_->overflowed() ? Outcome::kSlowReader
                 : DeadlinePassed()   ? Outcome::kDeadline
                                      : Outcome::kCancelled);
  LeaveTenant();
}

// Prompts count whole, also of what was cancelled early: else who cancels gets them computed for nothing.
void GenerationImpl::LeaveTenant() {
  int64_t prompt_tokens = 0;
  for (const std::vector<int32_t>& prompt : prompts_) prompt_tokens += static_cast<int64_t>(prompt.size());
  pass_.End(prompt_tokens, usage_.completion_tokens);
}

void GenerationImpl::Cancel() {
  for (RequestId id : ids_) model_->engine->Cancel(id);
}

std::optional<GenerationEvent> GenerationImpl::TryNext() {
  while (ready_.empty()) {
    if (done_) return std::nullopt;
    RawEvent raw;
    if (!queue_->TryPop(&raw)) return std::nullopt;
    if (auto* prompt = std::get_if<PromptInfo>(&raw.what)) {
      HandlePrompt(raw.prompt_index, *prompt);
    } else if (auto* token = std::get_if<TokenUpdate>(&raw.what)) {
      HandleToken(raw.prompt_index, *token);
    } else {
      const RequestEnd& end = std::get<RequestEnd>(raw.what);
      num_ended_ += raw.prompt_index == RawEvent::kAllPrompts ? ids_.size() - num_ended_ : 1;
      HandleEnd(end);
    }
  }
  GenerationEvent event = std::move(ready_.front());
  ready_.pop_front();
  return event;
}

TopLogprob GenerationImpl::Top(int32_t id, float logprob) const {
  TopLogprob top;
  top.id = id;
  top.logprob = logprob;
  if (model_->tokenizer != nullptr) {
    top.bytes = std::string(model_->tokenizer->TokenBytes(id));
    top.token = PrintableToken(top.bytes);
  } else {
    top.token = absl::StrCat("token_id:", id);
  }
  return top;
}

LogprobEntry GenerationImpl::Entry(int32_t id, const TokenLogprobs* logprobs, int64_t text_offset) const {
  LogprobEntry entry;
  static_cast<TopLogprob&>(entry) = Top(id, logprobs != nullptr ? logprobs->logprob : 0.0f);
  entry.has_logprob = logprobs != nullptr;
  entry.text_offset = text_offset;
  if (logprobs != nullptr) {
    for (const auto& [top_id, logprob] : logprobs->top) entry.top.push_back(Top(top_id, logprob));
  }
  return entry;
}

void GenerationImpl::HandlePrompt(int prompt_index, const PromptInfo& info) {
  usage_.prompt_tokens += info.num_tokens;
  usage_.cached_tokens += info.num_cached_tokens;
  ready_.push_back(PromptEvent{prompt_index, info.num_tokens, info.num_cached_tokens});
  if (request_.echo) Echo(prompt_index, info);
}

// The prompt goes through a detokenizer of its own, so that its text and its offsets agree.
void GenerationImpl::Echo(int prompt_index, const PromptInfo& info) {
  const std::vector<int32_t>& ids = prompts_[prompt_index];
  TextDelta delta;
  delta.prompt_index = prompt_index;
  std::unique_ptr<Detokenizer> detokenizer;
  if (model_->tokenizer != nullptr) {
    detokenizer = std::make_unique<Detokenizer>(model_->tokenizer.get(), request_.skip_special_tokens);
  }
  int64_t code_points = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (request_.logprobs >= 0) {
      const TokenLogprobs* logprobs = i > 0 && i - 1 < info.logprobs.size() ? &info.logprobs[i - 1] : nullptr;
      delta.logprobs.push_back(Entry(ids[i], logprobs, code_points));
    }
    if (detokenizer == nullptr) continue;
    const std::string text = detokenizer->Push(ids[i]);
    code_points += CountCodePoints(text);
    delta.text += text;
  }
  if (detokenizer != nullptr) {
    const std::string rest = detokenizer->Flush();
    code_points += CountCodePoints(rest);
    delta.text += rest;
  }
  for (int c = 0; c < request_.n; ++c) {
    delta.index = prompt_index * static_cast<int>(request_.n) + c;
    choices_[delta.index].code_points = code_points;
    ready_.push_back(delta);
  }
}

void GenerationImpl::HandleToken(int prompt_index, const TokenUpdate& update) {
  const int index = prompt_index * static_cast<int>(request_.n) + update.choice;
  Choice& choice = choices_[index];
  if (choice.finished) return;  // drawn before the engine saw the stop
  TextDelta delta;
  delta.index = index;
  delta.prompt_index = prompt_index;
  delta.finish = update.finish;
  if (request_.max_tokens ==
      0) {  // only the echo was asked for: the one token that the engine must draw is dropped
    delta.finish = FinishReason::kLength;
  } else {
    ++usage_.completion_tokens;
    ++choice.num_tokens;
    delta.token_ids.push_back(update.token);
    if (request_.logprobs >= 0)
      delta.logprobs.push_back(Entry(update.token, &update.logprobs, choice.code_points));
    if (choice.detokenizer != nullptr) {
      // The text of eos or of a stop token belongs to the answer only when asked for.
      const bool hide = update.finish == FinishReason::kStop && !request_.include_stop_str_in_output;
      std::string text = hide ? std::string() : choice.detokenizer->Push(update.token);
      if (update.finish != FinishReason::kNone) text += choice.detokenizer->Flush();
      choice.code_points += CountCodePoints(text);
      delta.text = choice.num_tokens <= request_.min_tokens ? choice.stops->PassThrough(text)
                                                            : choice.stops->Push(text);
      if (choice.stops->stopped()) {
        delta.finish = FinishReason::kStop;
        delta.stop_string = choice.stops->matched();
      } else if (update.finish != FinishReason::kNone) {
        delta.text += choice.stops->Flush();
      }
    }
  }
  if (delta.finish != FinishReason::kNone) {
    choice.finished = true;
    any_length_ |= delta.finish == FinishReason::kLength;
    if (update.finish == FinishReason::kNone) model_->engine->StopChoice(ids_[prompt_index], update.choice);
  }
  ready_.push_back(std::move(delta));
}

void GenerationImpl::HandleEnd(const RequestEnd& end) {
  if (!end.status.ok() && error_.ok()) {
    error_ = Explain(end.status);
    Cancel();  // the other prompts: half an answer is none
  }
  if (num_ended_ == ids_.size()) Finish();
}

bool GenerationImpl::DeadlinePassed() const { return MonotonicNow() + kDeadlineSlack >= deadline_; }

absl::Status GenerationImpl::Explain(const absl::Status& end) const {
  if (queue_->overflowed()) {
    return Annotate(absl::CancelledError("The reader was too slow: its queue of tokens reached its bound."),
                    "", "slow_reader");
  }
  if (absl::IsCancelled(end) && DeadlinePassed())
    return absl::DeadlineExceededError("The request's deadline has passed.");
  if (absl::IsUnavailable(end) && service_->state() == ServiceState::kDraining &&
      model_->engine->Stats().health.ok()) {
    return UnavailableError(end.message(), "draining", service_->options().retry_after);
  }
  return end;
}

void GenerationImpl::Finish() {
  const bool all_finished =
      std::all_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.finished; });
  // Every choice had its finish before the engine's end: a cancellation that came later changes nothing.
  if (all_finished) error_ = absl::OkStatus();
  if (error_.ok() && !all_finished)
    error_ = absl::InternalError("the engine ended a request before its choices");
  if (error_.ok()) {
    ticket_.Finish(any_length_ ? Outcome::kLength : Outcome::kStop);
  } else if (queue_->overflowed()) {
    ticket_.Finish(Outcome::kSlowReader);
  } else {
    ticket_.Finish(error_);
  }
  LeaveTenant();
  done_ = true;
  ready_.push_back(GenerationEnd{error_, usage_});
}

}  // namespace sessa
