// See logprob_entry.h.
#include "server/core/logprob_entry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/core/text_stream.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

TopLogprob Top(const Tokenizer* tokenizer, int32_t id, float logprob) {
  TopLogprob top;
  top.id = id;
  top.logprob = logprob;
  if (tokenizer != nullptr) {
    top.bytes = std::string(tokenizer->TokenBytes(id));
    top.token = PrintableToken(top.bytes);
  } else {
    top.token = absl::StrCat("token_id:", id);
  }
  return top;
}

}  // namespace

LogprobEntry MakeLogprobEntry(const Tokenizer* tokenizer, int32_t id, const TokenLogprobs* logprobs,
                              int64_t max_top, int64_t text_offset) {
  LogprobEntry entry;
  static_cast<TopLogprob&>(entry) = Top(tokenizer, id, logprobs != nullptr ? logprobs->logprob : 0.0f);
  entry.has_logprob = logprobs != nullptr;
  entry.text_offset = text_offset;
  if (logprobs != nullptr) {
    const size_t num_top = std::min(logprobs->top.size(), static_cast<size_t>(std::max<int64_t>(0, max_top)));
    entry.top.reserve(num_top);
    for (size_t i = 0; i < num_top; ++i) {
      const auto& [top_id, top_logprob] = logprobs->top[i];
      entry.top.push_back(Top(tokenizer, top_id, top_logprob));
    }
    entry.rank = logprobs->rank;
  }
  return entry;
}

}  // namespace sessa
