// A Generation's events as the JSON of one API: whole, or as server-sent events. Both render the same choices
// with the same code, so a stream is the one-shot answer cut into pieces. Not thread-safe; one request each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/core/generation.h"
#include "server/core/json_writer.h"

namespace sessa {

enum class Api { kCompletions, kChat, kKserve };

struct AnswerOptions {
  Api api = Api::kCompletions;
  std::string id;       // as the client sees it ("cmpl-..."); KServe: its own, may be empty
  int64_t created = 0;  // Unix seconds
  std::string model;
  int n = 1;  // choices for each prompt
  bool logprobs = false;
  bool return_token_ids = false;
  bool include_usage = false;                      // streams
  bool details = false;                            // KServe
  std::vector<std::vector<int32_t>> prompts = {};  // with return_token_ids
};

// The choices of one answer, by index.
class WholeAnswer {
 public:
  WholeAnswer(AnswerOptions options, int num_prompts);

  void Add(GenerationEvent event);
  bool ended() const { return ended_; }
  const absl::Status& status() const { return status_; }  // Requires: ended()
  const Usage& usage() const { return usage_; }
  std::string Body() const;  // Requires: ended(), status().ok()

 private:
  const AnswerOptions options_;
  std::vector<TextDelta> choices_;  // all deltas of a choice joined
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
  bool ended_ = false;
  absl::Status status_;
  Usage usage_;
};

}  // namespace sessa
