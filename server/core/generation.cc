// From raw engine events to text events; see generation.h.
#include <algorithm>
#include <utility>

#include "engine/monotonic.h"
#include "server/core/generation_impl.h"
#include "server/core/logprob_entry.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

// A gRPC client's own timer ends the call at the deadline too, and its cancellation may come before ours by
// the time that the call itself took to get here, on busy machines up to some scheduler's rounds.
constexpr absl::Duration kDeadlineSlack = absl::Milliseconds(200);

}  // namespace

GenerationImpl::GenerationImpl(Service* service, std::shared_ptr<const ServedModel> model,
                               GenerationRequest request, std::vector<std::vector<int32_t>> prompts,
                               std::shared_ptr<EventQueue> queue, std::vector<RequestId> ids,
                               absl::Time deadline, Tenants::Pass pass, RequestTicket ticket,
                               ByteBudget::Lease prompt_lease)
    : service_(service),
      model_(std::move(model)),
      request_(std::move(request)),
      prompts_(std::move(prompts)),
      queue_(std::move(queue)),
      ids_(std::move(ids)),
      deadline_(deadline),
      pass_(std::move(pass)),
      ticket_(std::move(ticket)),
      prompt_lease_(std::move(prompt_lease)),
      num_echoes_left_(prompts_.size()) {
  choices_.resize(prompts_.size() * request_.n);
  for (Choice& choice : choices_) {
    if (model_->tokenizer != nullptr) {
      choice.detokenizer = std::make_unique<Detokenizer>(model_->tokenizer.get(),
                                                         request_.skip_special_tokens, /*at_start=*/false);
    }
    choice.stops = std::make_unique<StopMatcher>(request_.stop, request_.include_stop_str_in_output);
  }
}

GenerationImpl::~GenerationImpl() {
  service_->watchdog_.Forget(queue_);
  queue_->Close();
  if (done_) return;
  Cancel();
  ticket_.Finish(slow_reader()      ? Outcome::kSlowReader
                 : DeadlinePassed() ? Outcome::kDeadline
                                    : Outcome::kCancelled);
  LeaveTenant();
}

// Prompts count whole, also of what was cancelled early: else who cancels gets them computed for nothing.
void GenerationImpl::LeaveTenant() {
  int64_t prompt_tokens = 0;
  for (const std::vector<int32_t>& prompt : prompts_) prompt_tokens += static_cast<int64_t>(prompt.size());
  pass_.End(prompt_tokens, usage_.completion_tokens);
}

void GenerationImpl::Abandon(const absl::Status& why) {
  if (done_) return;
  Cancel();
  queue_->Close();
  ticket_.Finish(why);
  LeaveTenant();
  done_ = true;
  ready_.clear();
  echo_.reset();
}

void GenerationImpl::Cancel() {
  for (RequestId id : ids_) model_->engine->Cancel(id);
}

std::optional<GenerationEvent> GenerationImpl::TryNext() {
  while (ready_.empty()) {
    if (done_) return std::nullopt;
    if (echo_.has_value()) {
      HandleEcho();
      continue;
    }
    RawEvent raw;
    if (!queue_->TryPop(&raw)) return std::nullopt;
    if (auto* prompt = std::get_if<PromptInfo>(&raw.what)) {
      HandlePrompt(raw.prompt_index, std::move(*prompt));
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

void GenerationImpl::HandlePrompt(int prompt_index, PromptInfo info) {
  usage_.prompt_tokens += info.num_tokens;
  usage_.cached_tokens += info.num_cached_tokens;
  ready_.push_back(PromptEvent{prompt_index, info.num_tokens, info.num_cached_tokens});
  if (!request_.echo && request_.prompt_logprobs < 0) return;
  echo_prompt_ = prompt_index;
  const int start = request_.echo_starts.empty() ? 0 : request_.echo_starts[prompt_index];
  echo_.emplace(model_->tokenizer.get(), request_, prompt_index, prompts_[prompt_index], start,
                std::move(info));
}

void GenerationImpl::HandleEcho() {
  if (std::optional<GenerationEvent> piece = echo_->Next()) {
    ready_.push_back(*std::move(piece));
    return;
  }
  for (int c = 0; request_.echo && c < request_.n; ++c) {
    choices_[echo_prompt_ * request_.n + c].code_points = echo_->code_points();
  }
  echo_.reset();
  if (--num_echoes_left_ == 0) prompt_lease_ = ByteBudget::Lease();
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
      0) {  // only the prompt was asked for: the one token that the engine must draw is dropped
    delta.finish = FinishReason::kLength;
  } else {
    if (usage_.completion_tokens++ == 0) times_.first_token = MonotonicNow() - start_;
    ++choice.num_tokens;
    delta.token_ids.push_back(update.token);
    if (request_.logprobs >= 0)
      delta.logprobs.push_back(MakeLogprobEntry(model_->tokenizer.get(), update.token, &update.logprobs,
                                                request_.logprobs, choice.code_points));
    if (choice.detokenizer != nullptr) {
      // The text of eos or of a stop token belongs to the answer only when asked for.
      const bool hide = update.finish == FinishReason::kStop && !request_.include_stop_str_in_output;
      std::string text = hide ? std::string() : choice.detokenizer->Push(update.token);
      if (update.finish != FinishReason::kNone) text += choice.detokenizer->Flush();
      choice.code_points += CountCodePoints(text);
      if (choice.num_tokens <= request_.min_tokens) {
        delta.text = choice.stops->PassThrough(text);
      } else {
        delta.text = choice.stops->Push(text);
        // Not shown, but a stop string may name it.
        if (!hide && request_.skip_special_tokens && model_->tokenizer->IsSpecial(update.token)) {
          const std::string_view token = model_->tokenizer->TokenBytes(update.token);
          delta.text += choice.stops->Push({token.data(), token.size()}, /*shown=*/false);
        }
      }
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
  if (end.scheduled != absl::InfinitePast())
    times_.queue = std::max(times_.queue.value_or(absl::ZeroDuration()), end.scheduled - end.arrival);
  if (!end.status.ok() && error_.ok()) {
    error_ = Explain(end.status);
    Cancel();  // the other prompts: half an answer is none
  }
  if (num_ended_ == ids_.size()) Finish();
}

bool GenerationImpl::DeadlinePassed() const { return MonotonicNow() + kDeadlineSlack >= deadline_; }

absl::Status GenerationImpl::Explain(const absl::Status& end) const {
  if (slow_reader()) {
    return Annotate(absl::CancelledError("The reader was too slow: its queue of tokens reached its bound."),
                    "", "slow_reader");
  }
  if (queue_->overflowed()) return OutOfBytesError(service_->options().retry_after);
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
    times_.finish = any_length_ ? "length" : "stop";
    ticket_.Finish(any_length_ ? Outcome::kLength : Outcome::kStop);
  } else if (slow_reader()) {
    ticket_.Finish(Outcome::kSlowReader);
  } else {
    ticket_.Finish(error_);
  }
  LeaveTenant();
  done_ = true;
  ready_.push_back(GenerationEnd{error_, usage_});
}

}  // namespace sessa
