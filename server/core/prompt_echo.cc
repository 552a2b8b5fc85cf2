// See prompt_echo.h.
#include "server/core/prompt_echo.h"

#include <algorithm>
#include <utility>

#include "server/core/logprob_entry.h"
#include "server/core/text_stream.h"

namespace sessa {

PromptEcho::PromptEcho(const Tokenizer* tokenizer, const GenerationRequest& request, int prompt_index,
                       const std::vector<int32_t>& ids, int start, PromptInfo info)
    : tokenizer_(tokenizer),
      request_(request),
      prompt_index_(prompt_index),
      n_(static_cast<int>(request.n)),
      ids_(ids),
      start_(start),
      info_(std::move(info)),
      scoring_(request.prompt_logprobs >= 0),
      choice_(request.echo ? 0 : n_),
      next_(start_) {}

std::optional<GenerationEvent> PromptEcho::Next() {
  const bool once = !request_.stream;
  if (next_ == ids_.size()) {
    if (!std::exchange(scoring_, false)) choice_ += once ? n_ : 1;
    next_ = start_;
  }
  if (!scoring_ && choice_ >= n_) return std::nullopt;
  if (next_ == start_) {
    code_points_ = 0;
    if (tokenizer_ != nullptr) detokenizer_.emplace(tokenizer_, request_.skip_special_tokens);
  }
  if (scoring_) {
    PromptLogprobs scores;
    scores.prompt_index = prompt_index_;
    Piece(request_.prompt_logprobs, &scores.tokens);
    return scores;
  }
  TextDelta delta;
  delta.prompt_index = prompt_index_;
  delta.index = prompt_index_ * n_ + choice_;
  delta.num_choices = once ? n_ : 1;
  delta.text = Piece(request_.logprobs, &delta.logprobs);
  return delta;
}

std::string PromptEcho::Piece(int64_t logprobs, std::vector<LogprobEntry>* entries) {
  std::string piece;
  const size_t end = std::min(ids_.size(), next_ + kPieceTokens);
  for (; next_ < end; ++next_) {
    if (logprobs >= 0) {
      const size_t first = std::max<size_t>(start_, 1);  // that has one
      const TokenLogprobs* of_token =
          next_ >= first && next_ - first < info_.logprobs.size() ? &info_.logprobs[next_ - first] : nullptr;
      entries->push_back(MakeLogprobEntry(tokenizer_, ids_[next_], of_token, logprobs, code_points_));
    }
    if (!detokenizer_.has_value()) continue;
    std::string text = detokenizer_->Push(ids_[next_]);
    if (next_ + 1 == ids_.size()) text += detokenizer_->Flush();
    code_points_ += CountCodePoints(text);
    piece += text;
  }
  return piece;
}

}  // namespace sessa
