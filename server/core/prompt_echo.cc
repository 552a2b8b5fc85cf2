// See prompt_echo.h.
#include "server/core/prompt_echo.h"

#include <algorithm>
#include <utility>

#include "server/core/logprob_entry.h"
#include "server/core/text_stream.h"

namespace sessa {

PromptEcho::PromptEcho(const Tokenizer* tokenizer, bool skip_special_tokens, bool with_logprobs,
                       int prompt_index, int n, bool once, const std::vector<int32_t>& ids, int start,
                       PromptInfo info)
    : tokenizer_(tokenizer),
      skip_special_tokens_(skip_special_tokens),
      with_logprobs_(with_logprobs),
      once_(once),
      prompt_index_(prompt_index),
      n_(n),
      ids_(ids),
      start_(start),
      info_(std::move(info)),
      next_(start_) {}

std::optional<TextDelta> PromptEcho::Next() {
  if (next_ == ids_.size()) {
    choice_ += once_ ? n_ : 1;
    next_ = start_;
  }
  if (choice_ >= n_) return std::nullopt;
  if (next_ == start_) {
    code_points_ = 0;
    if (tokenizer_ != nullptr) detokenizer_.emplace(tokenizer_, skip_special_tokens_);
  }
  TextDelta delta;
  delta.prompt_index = prompt_index_;
  delta.index = prompt_index_ * n_ + choice_;
  delta.num_choices = once_ ? n_ : 1;
  const size_t end = std::min(ids_.size(), next_ + kPieceTokens);
  for (; next_ < end; ++next_) {
    if (with_logprobs_) {
      const size_t first = std::max<size_t>(start_, 1);  // that has one
      const TokenLogprobs* logprobs =
          next_ >= first && next_ - first < info_.logprobs.size() ? &info_.logprobs[next_ - first] : nullptr;
      delta.logprobs.push_back(MakeLogprobEntry(tokenizer_, ids_[next_], logprobs, code_points_));
    }
    if (!detokenizer_.has_value()) continue;
    std::string text = detokenizer_->Push(ids_[next_]);
    if (next_ + 1 == ids_.size()) text += detokenizer_->Flush();
    code_points_ += CountCodePoints(text);
    delta.text += text;
  }
  return delta;
}

}  // namespace sessa
