// A Generation's events as the JSON of one API: whole, or as server-sent events. Both render the same choices
// with the same code, so a stream is the one-shot answer cut into pieces. A whole answer is kept as JSON from
// the beginning, in ropes that share what several choices have in common: it takes the memory of what is
// written, or less. Not thread-safe; one request each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "server/core/generation.h"
#include "server/core/json_writer.h"
#include "server/kserve/infer_json.h"

namespace sessa {

enum class Api { kCompletions, kChat, kResponses, kKserve, kKserveInfer };

struct AnswerOptions {
  Api api = Api::kCompletions;
  std::string id;       // as the client sees it ("cmpl-..."); KServe: its own, may be empty
  int64_t created = 0;  // Unix seconds
  std::string model;
  int n = 1;  // choices for each prompt
  bool logprobs = false;
  bool prompt_logprobs = false;
  bool return_token_ids = false;
  bool include_usage = false;                      // streams
  bool continuous_usage = false;                   // and in every chunk
  bool details = false;                            // KServe
  std::vector<std::vector<int32_t>> prompts = {};  // with return_token_ids
  std::string settings = {};                       // /v1/responses: members of the request, repeated
  ParsedInfer infer = {};                          // kKserveInfer
};

// What a choice came to, or one delta of it: insides of JSON strings and members of arrays with commas
// between. `Text` is std::string, or absl::Cord where many are joined.
template <typename Text>
struct ChoiceParts {
  Text text;
  Text tokens, token_logprobs, top_logprobs, text_offsets;  // of /v1/completions
  Text entries;                                             // log-probabilities of chat and KServe
  Text token_ids;
  Text prompt_logprobs;  // of the prompt, in each of its choices
};

struct ChoiceEnd {
  FinishReason finish = FinishReason::kNone;
  std::string stop_string;
};

// The choices of one answer, by index.
class WholeAnswer {
 public:
  WholeAnswer(AnswerOptions options, int num_prompts);

  void Add(GenerationEvent event);
  // Ends it with an error that is not the Generation's.
  void Fail(absl::Status status);
  bool ended() const { return ended_; }
  const absl::Status& status() const { return status_; }  // Requires: ended()
  const Usage& usage() const { return usage_; }
  // What it takes in memory so far: an echo counts once for all its choices.
  int64_t num_bytes() const { return num_bytes_; }
  // Nothing is kept of it here. Requires: ended(), status().ok().
  absl::Cord TakeBody();

 private:
  struct Choice {
    ChoiceParts<absl::Cord> parts;
    ChoiceEnd end;
  };
  const AnswerOptions options_;
  std::vector<Choice> choices_;                  // [prompts * n]
  std::vector<ChoiceParts<absl::Cord>> echoes_;  // [prompts], before each of its choices
  int64_t num_bytes_ = 0;
  bool ended_ = false;
  absl::Status status_;
  Usage usage_;
};

class StreamAnswer {
 public:
  StreamAnswer(AnswerOptions options, int num_prompts);

  // Appends the event's server-sent events, at the end also usage or error, and [DONE].
  void Add(const GenerationEvent& event, std::string* out);
  bool ended() const { return ended_; }
  const absl::Status& status() const { return status_; }
  const Usage& usage() const { return usage_; }

 private:
  void AddRoles(int prompt_index, std::string* out);
  void AddDelta(const TextDelta& delta, std::string* out);

  const AnswerOptions options_;
  std::vector<bool> started_;  // choices that something was sent for
  // With continuous_usage: of each prompt, and of each choice so far.
  std::vector<int64_t> prompt_tokens_, completion_tokens_;
  bool ended_ = false;
  absl::Status status_;
  Usage usage_;
};

}  // namespace sessa
