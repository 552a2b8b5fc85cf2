// See answer_bound.h. The constants are the longest that JsonWriter makes: 15 characters for a float, 20 for
// an integer of 64 bits, 10 for a token id.
#include "server/core/answer_bound.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/core/limits.h"
#include "server/tokenizer/tokenizer.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

// One token with its log-probability beside its text, and each of its rivals: in the four arrays of
// /v1/completions, and as an object of chat's (KServe's are between the two).
//   "",-1.17549435e-38,{},12345678901,    "":-1.17549435e-38,
//   {"token":"","logprob":-1.17549435e-38,"bytes":[],"top_logprobs":[]},
//   {"token":"","logprob":-1.17549435e-38,"bytes":[]},
constexpr int64_t kEntryBytes = 40, kRivalBytes = 20;
constexpr int64_t kChatEntryBytes = 80, kChatRivalBytes = 56;
//   "1234567890":{"logprob":-1.17549435e-38,"rank":1234567890,"decoded_token":""},    and {}, around a
//   token's
constexpr int64_t kPromptRivalBytes = 78, kPromptEntryBytes = 3;
constexpr int64_t kChoiceBytes = 512;

int64_t EscapedBytes(std::string_view text) {
  int64_t bytes = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    bytes += byte < 0x20 ? 6 : byte == '"' || byte == '\\' ? 2 : 1;
  }
  return bytes;
}

}  // namespace

AnswerBound::AnswerBound(const Tokenizer* tokenizer, int vocab_size, int max_logprobs)
    : tokenizer_(tokenizer) {
  std::vector<int64_t> json(vocab_size), raw(vocab_size);
  for (int32_t id = 0; id < vocab_size; ++id) {
    const Size size = Of(id);
    json[id] = size.json;
    raw[id] = size.raw;
  }
  const size_t num = std::min<size_t>(vocab_size, max_logprobs + 1);
  std::partial_sort(json.begin(), json.begin() + num, json.end(), std::greater<>());
  std::partial_sort(raw.begin(), raw.begin() + num, raw.end(), std::greater<>());
  longest_.resize(num + 1);
  for (size_t k = 0; k < num; ++k) {
    longest_[k + 1] = {longest_[k].json + json[k], longest_[k].raw + raw[k]};
  }
}

AnswerBound::Size AnswerBound::Of(int32_t id) const {
  if (tokenizer_ == nullptr) return {20, 0};  // `token_id:1234567890`
  const std::string_view bytes = tokenizer_->TokenBytes(id);
  const auto raw = static_cast<int64_t>(bytes.size());
  // A part of a character: `bytes:\\xe2\\x82` among log-probabilities; in the text at most one U+FFFD a byte.
  if (FindInvalidUtf8(bytes) != std::string_view::npos) return {6 + 6 * raw, raw};
  return {EscapedBytes(bytes), raw};
}

int64_t AnswerBound::TextBytes(absl::Span<const int32_t> ids) const {
  int64_t bytes = 0;
  for (const int32_t id : ids) bytes += Of(id).json;
  return bytes;
}

int64_t AnswerBound::TokenBytes(const GenerationRequest& request, const Size& token) const {
  int64_t bytes = token.json + (request.return_token_ids ? kIdBytes : 0);
  if (request.logprobs < 0) return bytes;
  // /v1/completions lists the token itself among its rivals.
  const auto rivals = std::min<size_t>(request.logprobs + 1, longest_.size() - 1);
  const auto num_rivals = static_cast<int64_t>(rivals);
  bytes += token.json + longest_[rivals].json;
  if (!request.is_chat) return bytes + kEntryBytes + num_rivals * kRivalBytes;
  // `255,` for each byte
  return bytes + kChatEntryBytes + num_rivals * kChatRivalBytes + 4 * (token.raw + longest_[rivals].raw);
}

int64_t AnswerBound::PromptTokenBytes(const GenerationRequest& request, const Size& token) const {
  const auto rivals = std::min<size_t>(request.prompt_logprobs, longest_.size() - 1);
  return kPromptEntryBytes + token.json + longest_[rivals].json +
         static_cast<int64_t>(rivals + 1) * kPromptRivalBytes;
}

absl::Status AnswerBound::Check(const GenerationRequest& request,
                                absl::Span<const std::vector<int32_t>> prompts, absl::Span<Request> requests,
                                int64_t max_bytes) const {
  int64_t stop_bytes = 0;
  for (const std::string& stop : request.stop) {
    stop_bytes = std::max(stop_bytes, 6 * static_cast<int64_t>(stop.size()));
  }
  int64_t once_bytes = 0;                    // of an answer, however many choices it has
  int64_t choice_bytes = 0, num_tokens = 0;  // of one choice of each prompt
  for (size_t i = 0; i < prompts.size(); ++i) {
    choice_bytes += kChoiceBytes + stop_bytes;
    if (request.return_token_ids) choice_bytes += kIdBytes * static_cast<int64_t>(prompts[i].size());
    if (request.echo) {
      const size_t start = request.echo_starts.empty() ? 0 : request.echo_starts[i];
      for (size_t k = start; k < prompts[i].size(); ++k)
        choice_bytes += TokenBytes(request, Of(prompts[i][k]));
    }
    if (request.prompt_logprobs >= 0) {
      int64_t* const bytes = request.is_chat ? &once_bytes : &choice_bytes;
      for (const int32_t id : prompts[i]) *bytes += PromptTokenBytes(request, Of(id));
    }
    num_tokens += requests[i].sampling.max_tokens;
  }
  const int64_t token_bytes = TokenBytes(request, longest_[1]);
  const int64_t bytes = once_bytes + request.n * (choice_bytes + num_tokens * token_bytes);
  if (bytes > max_bytes && request.is_chat && !request.max_tokens.has_value()) {
    const int64_t fits = ((max_bytes - once_bytes) / request.n - choice_bytes) / token_bytes;
    if (fits >= std::max<int64_t>(1, request.min_tokens)) {
      for (Request& r : requests) {
        r.sampling.max_tokens = static_cast<int>(std::min<int64_t>(r.sampling.max_tokens, fits));
      }
      return absl::OkStatus();
    }
  }
  if (bytes <= max_bytes) return absl::OkStatus();
  const std::string& param = request.prompt_logprobs >= 0 ? "prompt_logprobs"
                             : request.logprobs >= 0      ? request.logprobs_name
                                                          : request.max_tokens_name;
  return FieldError(
      param,
      absl::StrCat("the answer may come to ", bytes, " bytes, at most ", max_bytes,
                   " (max_answer_bytes) are served; ask for fewer choices, tokens or log-probabilities"),
      "answer_too_large");
}

int64_t AnswerBound::PromptLogprobBytes(const GenerationRequest& request,
                                        absl::Span<const std::vector<int32_t>> prompts) {
  int64_t num_top = request.echo ? request.logprobs : -1;
  if (request.prompt_logprobs >= 0) num_top = std::max(request.logprobs, request.prompt_logprobs);
  if (num_top < 0) return 0;
  int64_t num_tokens = 0;
  for (const std::vector<int32_t>& prompt : prompts) num_tokens += static_cast<int64_t>(prompt.size());
  for (const int32_t start : request.echo_starts) num_tokens -= start;
  return num_tokens *
         static_cast<int64_t>(sizeof(TokenLogprobs) + num_top * sizeof(std::pair<int32_t, float>));
}

}  // namespace sessa
