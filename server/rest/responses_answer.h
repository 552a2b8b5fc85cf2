// A Generation's events as OpenAI's /v1/responses has them: one `response` object, or the typed events in
// which the openai package reads a stream. There is one output item, a message, with one part, its text. Not
// thread-safe; one request each.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "server/core/generation.h"
#include "server/rest/answer.h"

namespace sessa {

class ResponsesAnswer {
 public:
  ResponsesAnswer(AnswerOptions options, bool stream);

  // Of a stream, appends the event's server-sent events.
  void Add(const GenerationEvent& event, std::string* out);
  // Ends it with an error that is not the Generation's.
  void Fail(absl::Status status, std::string* out);
  bool ended() const { return ended_; }
  const absl::Status& status() const { return status_; }  // Requires: ended()
  const Usage& usage() const { return usage_; }
  // What it takes in memory so far: a stream too says its whole text at the end once more.
  int64_t num_bytes() const { return static_cast<int64_t>(parts_.text.size() + parts_.entries.size()); }
  // Requires: ended(), status().ok(), not a stream.
  absl::Cord TakeBody() { return Response(); }

 private:
  void Begin(std::string* out);
  void End(std::string* out);
  void Event(const char* type, const absl::Cord& members, std::string* out);
  absl::Cord Place() const;  // of the text, in events about it
  absl::Cord Part() const;
  absl::Cord Item() const;
  absl::Cord Response() const;
  const char* Status() const;

  const AnswerOptions options_;
  const bool stream_;
  const std::string item_id_;
  ChoiceParts<absl::Cord> parts_;
  FinishReason finish_ = FinishReason::kNone;
  int64_t num_events_ = 0;
  bool begun_ = false, ended_ = false;
  absl::Status status_;
  Usage usage_;
};

}  // namespace sessa
