// One request being generated: the engine's tokens in, text events out. The sinks put tokens into one bounded
// queue on the engine's thread; detokenisation, stop strings and log-probabilities are worked out on the
// reader's thread, in TryNext. Concatenated text deltas are byte for byte the same however they were cut. One
// reader at a time; Cancel may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request.h"

namespace sessa {

struct TopLogprob {
  int32_t id = 0;
  std::string token;  // valid UTF-8; a token that is not is written as "bytes:\xe2\x82"
  std::string bytes;  // the token's own bytes
  float logprob = 0.0f;
};

struct LogprobEntry : TopLogprob {
  bool has_logprob = true;      // false: the first token of a prompt
  int rank = 0;                 // of the token itself in the vocabulary, from 1; 0: it has no logprob
  int64_t text_offset = 0;      // code points before this token in the choice's text
  std::vector<TopLogprob> top;  // best first
};

struct PromptEvent {  // once for each prompt, before its text
  int prompt_index = 0;
  int num_tokens = 0;
  int num_cached_tokens = 0;
};

struct PromptLogprobs {  // with prompt_logprobs: pieces of a prompt, in order, before its text
  int prompt_index = 0;
  std::vector<LogprobEntry> tokens;
};

struct TextDelta {
  int index = 0;        // prompt_index * n + choice
  int num_choices = 1;  // the same for so many choices from `index` on: an echo, when nothing is streamed
  int prompt_index = 0;
  std::string text;
  std::vector<int32_t> token_ids;             // the generated tokens since the last delta (always filled)
  std::vector<LogprobEntry> logprobs;         // with logprobs; with echo the prompt's come first
  FinishReason finish = FinishReason::kNone;  // not kNone: this choice's last delta
  std::string stop_string;  // finish == kStop because of this one; empty: eos or a stop token id
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
};

// For the access log: what is known so far.
struct GenerationTimes {
  std::optional<absl::Duration> queue;        // until the engine began, the longest of its prompts
  std::optional<absl::Duration> first_token;  // from its submission until the reader had it
  std::string finish;                         // "stop", or "length" when a choice ended so; empty: it failed
};

struct GenerationEnd {  // once and last
  absl::Status status;  // OK: each choice had its finish
  Usage usage;
};

using GenerationEvent = std::variant<PromptEvent, PromptLogprobs, TextDelta, GenerationEnd>;

class Generation {
 public:
  virtual ~Generation() = default;  // cancels what still runs

  // The next event, or none yet. After GenerationEnd: none, for ever.
  virtual std::optional<GenerationEvent> TryNext() = 0;
  // `notify` is called once on another thread each time TryNext gave none and there is news now. It must not
  // block nor call this object, and must own what it touches: one call may come just after this object is
  // gone.
  virtual void SetNotify(std::function<void()> notify) = 0;
  // Ends it with CANCELLED.
  virtual void Cancel() = 0;
  // The reader gives up: what runs is cancelled, it is counted as `why`, and no event comes any more.
  virtual void Abandon(const absl::Status& why) = 0;

  virtual const std::vector<std::vector<int32_t>>& prompt_token_ids() const = 0;  // one for each prompt
  virtual const std::string& model() const = 0;
  virtual Usage usage() const = 0;  // so far
  virtual GenerationTimes times() const = 0;
};

}  // namespace sessa
