// See answer.h.
#include "server/rest/answer.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/rest/answer_json.h"
#include "server/rest/http_message.h"

namespace sessa {
namespace {

constexpr int64_t kIdBytes = 7;  // of a token id and its comma

template <typename Text>
int64_t Bytes(const ChoiceParts<Text>& p) {
  return static_cast<int64_t>(p.text.size() + p.tokens.size() + p.token_logprobs.size() +
                              p.top_logprobs.size() + p.text_offsets.size() + p.entries.size() +
                              p.token_ids.size() + p.prompt_logprobs.size());
}

void AppendEvent(const std::string& data, std::string* out) { absl::StrAppend(out, "data: ", data, "\n\n"); }

// One chunk with one choice, or with none and the usage.
std::string Chunk(const AnswerOptions& options, const TextDelta* delta, bool first, const Usage* usage) {
  std::string data =
      AnswerHead(options, options.api == Api::kChat ? "chat.completion.chunk" : "text_completion");
  data += R"("choices":[)";
  if (delta != nullptr) {
    WriteChoice(options, {delta->index, delta->prompt_index, true, first}, RenderDelta(options, *delta),
                {delta->finish, delta->stop_string}, &data);
  }
  data += "]";
  if (options.return_token_ids && options.api == Api::kChat && first) {
    absl::StrAppend(&data, ",", PromptIdsMember(options, 0));
  }
  if (usage != nullptr) {
    absl::StrAppend(&data, R"(,"usage":)", UsageJson(*usage));
  } else if (options.include_usage) {
    data += R"(,"usage":null)";
  }
  return data + "}";
}

}  // namespace

WholeAnswer::WholeAnswer(AnswerOptions options, int num_prompts)
    : options_(std::move(options)),
      choices_(static_cast<size_t>(num_prompts) * options_.n),
      echoes_(num_prompts) {
  for (const std::vector<int32_t>& ids : options_.prompts) {  // written once for each choice
    num_bytes_ += kIdBytes * options_.n * static_cast<int64_t>(ids.size());
  }
}

void WholeAnswer::Add(GenerationEvent event) {
  if (auto* delta = std::get_if<TextDelta>(&event)) {
    const ChoiceParts<std::string> parts = RenderDelta(options_, *delta);
    num_bytes_ += Bytes(parts);
    if (delta->num_choices > 1) return Join(parts, &echoes_[delta->prompt_index]);
    Choice& choice = choices_[delta->index];
    Join(parts, &choice.parts);
    choice.end = {delta->finish, std::move(delta->stop_string)};
  } else if (auto* scores = std::get_if<PromptLogprobs>(&event)) {
    const ChoiceParts<std::string> parts = RenderPromptLogprobs(*scores);
    num_bytes_ += Bytes(parts);
    Join(parts, &echoes_[scores->prompt_index]);
  } else if (auto* end = std::get_if<GenerationEnd>(&event)) {
    ended_ = true;
    status_ = std::move(end->status);
    usage_ = end->usage;
  }
}

void WholeAnswer::Fail(absl::Status status) {
  ended_ = true;
  status_ = std::move(status);
  for (Choice& choice : choices_) choice = {};
  for (auto& echo : echoes_) echo = {};
  num_bytes_ = 0;
}

absl::Cord WholeAnswer::TakeBody() {
  absl::Cord body;
  if (options_.api == Api::kKserve) {
    WriteChoice(options_, {}, choices_[0].parts, choices_[0].end, &body);
    choices_[0] = {};
    return body;
  }
  body.Append(AnswerHead(options_, options_.api == Api::kChat ? "chat.completion" : "text_completion"));
  body.Append(R"("choices":[)");
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i > 0) body.Append(",");
    const int prompt_index = static_cast<int>(i) / options_.n;
    ChoiceParts<absl::Cord> parts = echoes_[prompt_index];  // shared, not copied
    Join(choices_[i].parts, &parts);
    WriteChoice(options_, {static_cast<int>(i), prompt_index, false, true}, parts, choices_[i].end, &body);
    choices_[i] = {};
  }
  body.Append("]");
  if (options_.api == Api::kChat) WritePromptLogprobs(options_, echoes_[0], &body);
  echoes_.clear();
  if (options_.return_token_ids && options_.api == Api::kChat) {
    body.Append(absl::StrCat(",", PromptIdsMember(options_, 0)));
  }
  body.Append(absl::StrCat(R"(,"usage":)", UsageJson(usage_), "}"));
  return body;
}

StreamAnswer::StreamAnswer(AnswerOptions options, int num_prompts)
    : options_(std::move(options)),
      started_(static_cast<size_t>(num_prompts) * options_.n),
      prompt_tokens_(num_prompts),
      completion_tokens_(started_.size()) {}

void StreamAnswer::Add(const GenerationEvent& event, std::string* out) {
  if (const auto* prompt = std::get_if<PromptEvent>(&event)) {
    prompt_tokens_[prompt->prompt_index] = prompt->num_tokens;
    if (options_.api == Api::kChat) AddRoles(prompt->prompt_index, out);
  } else if (const auto* delta = std::get_if<TextDelta>(&event)) {
    AddDelta(*delta, out);
  } else if (const auto* end = std::get_if<GenerationEnd>(&event)) {
    ended_ = true;
    status_ = end->status;
    usage_ = end->usage;
    if (!end->status.ok()) {
      const ErrorInfo error = Describe(end->status);
      AppendEvent(options_.api == Api::kKserve ? KserveErrorJson(error) : ErrorJson(error), out);
    } else if (options_.include_usage && options_.api != Api::kKserve) {
      AppendEvent(Chunk(options_, nullptr, false, &usage_), out);
    }
    if (options_.api != Api::kKserve) AppendEvent("[DONE]", out);  // there, every event is an object
  }
}

void StreamAnswer::AddRoles(int prompt_index, std::string* out) {
  for (int choice = 0; choice < options_.n; ++choice) {
    TextDelta role;
    role.index = prompt_index * options_.n + choice;
    role.prompt_index = prompt_index;
    AddDelta(role, out);
  }
}

void StreamAnswer::AddDelta(const TextDelta& delta, std::string* out) {
  completion_tokens_[delta.index] += static_cast<int64_t>(delta.token_ids.size());
  const bool first = !started_[delta.index];
  const bool role = options_.api == Api::kChat && first;
  const bool tokens = options_.return_token_ids && !delta.token_ids.empty();
  const bool logprobs = options_.logprobs && !delta.logprobs.empty();
  // Text may be held back (half a character, the start of a stop string): nothing to say yet.
  if (delta.text.empty() && delta.finish == FinishReason::kNone && !role && !tokens && !logprobs) return;
  started_[delta.index] = true;
  if (options_.api == Api::kKserve) {
    std::string data;
    WriteChoice(options_, {}, RenderDelta(options_, delta), {delta.finish, delta.stop_string}, &data);
    return AppendEvent(data, out);
  }
  const Usage so_far = {prompt_tokens_[delta.prompt_index], completion_tokens_[delta.index]};
  AppendEvent(Chunk(options_, &delta, first, options_.continuous_usage ? &so_far : nullptr), out);
}

}  // namespace sessa
