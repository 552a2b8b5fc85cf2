// The JSON of choices, whole or in chunks, for answer.cc. Pure.
#pragma once

#include <string>

#include "server/rest/answer.h"

namespace sessa {

// The parts of one delta that this API shows.
ChoiceParts<std::string> RenderDelta(const AnswerOptions& options, const TextDelta& delta);

// A piece of a prompt's log-probabilities, as vLLM writes them.
ChoiceParts<std::string> RenderPromptLogprobs(const PromptLogprobs& piece);

// `,"prompt_logprobs":[...]`, where it was asked for.
template <typename Text>
void WritePromptLogprobs(const AnswerOptions& options, const ChoiceParts<Text>& parts, Text* out);

// Appends one delta's parts, or all of an echo's, to a choice's.
template <typename Text>
void Join(const ChoiceParts<Text>& parts, ChoiceParts<absl::Cord>* all);

struct ChoicePlace {
  int index = 0, prompt_index = 0;
  bool chunk = false;  // of a stream
  bool first = false;  // nothing was sent for this choice before
};

// One of "choices", or all of a KServe answer.
template <typename Text>
void WriteChoice(const AnswerOptions& options, const ChoicePlace& place, const ChoiceParts<Text>& parts,
                 const ChoiceEnd& end, Text* out);

// `"prompt_token_ids":[...],`
std::string PromptIdsMember(const AnswerOptions& options, int prompt_index);

// `{"id":...,"object":...,"created":...,"model":...,`
std::string AnswerHead(const AnswerOptions& options, const char* object);

std::string UsageJson(const Usage& usage);

}  // namespace sessa
