// Pieces that several bodies share; for request_json*.cc alone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "boost/json/value.hpp"
#include "server/core/generation_request.h"
#include "server/rest/fields.h"

namespace sessa {

// The body's value, which is an object.
absl::StatusOr<boost::json::value> ParseBody(const std::string& body, const Limits& limits);

// A string, strings, token ids, or lists of token ids; the first element decides which. `name` is the
// field's.
absl::Status ReadPrompts(const boost::json::value& value, const std::string& name,
                         std::vector<PromptInput>* out);
// -1 is none, as vLLM has it; other negative numbers stand for their 64 bits.
void ReadSeed(Fields& fields, ReadLog* log, std::optional<uint64_t>* seed);
// "timeout" in seconds, an extension.
void ReadTimeout(Fields& fields, ReadLog* log, std::optional<absl::Duration>* timeout);

// Sampling fields, the same in every generation body.
void ReadSampling(Fields& fields, ReadLog* log, GenerationRequest* request);
// stream, stream_options, user and what else is the same in OpenAI's two bodies.
void ReadCommon(Fields& fields, ReadLog* log, GenerationRequest* request);
// What a chat's template gets: messages, tools and the rest. Absent messages: leaves them empty.
void ReadChat(Fields& fields, const Limits& limits, ReadLog* log, Chat* out);
// Of that, what is neither messages nor tools.
void ReadTemplateVariables(Fields& fields, ReadLog* log, Chat* out);

}  // namespace sessa
