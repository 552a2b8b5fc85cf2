// The JSON of the OpenAI API that the REST client writes and reads.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "loadtest/call.h"
#include "loadtest/client.h"

namespace sessa::loadtest {

// The body of a streaming request.
std::string RequestBody(const RequestOptions& options, const Call& call);

// A word for each token id, after a space: for servers that take no ids. Most tokenizers make one token of
// one.
void AppendWord(int32_t id, std::string* text);

// What one event of a stream says.
struct StreamChunk {
  enum class Kind { kChunk, kError, kUnreadable } kind = Kind::kChunk;
  int num_tokens = 0;
  bool counted = false;            // num_tokens is from token ids, not a guess of one for an event with text
  std::vector<int32_t> token_ids;  // with keep_answer
  std::string text;                // with keep_answer
  std::string finish_reason;       // empty: not finished
  int prompt_tokens = -1, completion_tokens = -1, cached_tokens = -1;  // usage
  std::string error, error_code, error_type;
};
StreamChunk ParseChunk(absl::string_view data, bool keep_answer);

// The message of an error body, {"error": {"message": ...}}, or the start of whatever it is.
std::string ErrorMessage(absl::string_view body);

}  // namespace sessa::loadtest
