// See answer.h.
#include "server/rest/answer.h"

#include <set>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/rest/http_message.h"

namespace sessa {
namespace {

void WriteIds(const std::vector<int32_t>& ids, JsonWriter* json) {
  json->BeginArray();
  for (int32_t id : ids) json->Int(id);
  json->EndArray();
}

void WriteFinish(const TextDelta& delta, JsonWriter* json) {
  json->Key("finish_reason");
  switch (delta.finish) {
    case FinishReason::kNone: json->Null(); break;
    case FinishReason::kStop: json->String("stop"); break;
    case FinishReason::kLength: json->String("length"); break;
  }
}

// vLLM's extension: the stop string that matched; null for eos.
void WriteStopReason(const TextDelta& delta, JsonWriter* json) {
  json->Key("stop_reason");
  delta.stop_string.empty() ? json->Null() : json->String(delta.stop_string);
}

void WriteUsage(const Usage& usage, JsonWriter* json) {
  json->BeginObject().Key("prompt_tokens").Int(usage.prompt_tokens);
  json->Key("completion_tokens").Int(usage.completion_tokens);
  json->Key("total_tokens").Int(usage.prompt_tokens + usage.completion_tokens);
  json->Key("prompt_tokens_details").BeginObject().Key("cached_tokens").Int(usage.cached_tokens).EndObject();
  json->EndObject();
}

// /v1/completions: parallel arrays; the token itself is among its top_logprobs.
void WriteCompletionLogprobs(const std::vector<LogprobEntry>& entries, JsonWriter* json) {
  json->BeginObject().Key("tokens").BeginArray();
  for (const LogprobEntry& entry : entries) json->String(entry.token);
  json->EndArray().Key("token_logprobs").BeginArray();
  for (const LogprobEntry& entry : entries) entry.has_logprob ? json->Float(entry.logprob) : json->Null();
  json->EndArray().Key("top_logprobs").BeginArray();
  for (const LogprobEntry& entry : entries) {
    if (!entry.has_logprob) {
      json->Null();
      continue;
    }
    std::set<std::string> written;  // two ids may print the same: the better one is kept
    json->BeginObject();
    for (const TopLogprob& top : entry.top) {
      if (written.insert(top.token).second) json->Key(top.token).Float(top.logprob);
    }
    if (written.insert(entry.token).second) json->Key(entry.token).Float(entry.logprob);
    json->EndObject();
  }
  json->EndArray().Key("text_offset").BeginArray();
  for (const LogprobEntry& entry : entries) json->Int(entry.text_offset);
  json->EndArray().EndObject();
}

void WriteChatToken(const TopLogprob& token, JsonWriter* json) {
  json->Key("token").String(token.token).Key("logprob").Float(token.logprob).Key("bytes").BeginArray();
  for (const char byte : token.bytes) json->Int(static_cast<unsigned char>(byte));
  json->EndArray();
}

void WriteChatLogprobs(const std::vector<LogprobEntry>& entries, JsonWriter* json) {
  json->BeginObject().Key("content").BeginArray();
  for (const LogprobEntry& entry : entries) {
    json->BeginObject();
    WriteChatToken(entry, json);
    json->Key("top_logprobs").BeginArray();
    for (const TopLogprob& top : entry.top) {
      json->BeginObject();
      WriteChatToken(top, json);
      json->EndObject();
    }
    json->EndArray().EndObject();
  }
  json->EndArray().Key("refusal").Null().EndObject();
}

void WriteLogprobs(const AnswerOptions& options, const TextDelta& delta, JsonWriter* json) {
  json->Key("logprobs");
  if (!options.logprobs) {
    json->Null();
  } else if (options.api == Api::kChat) {
    WriteChatLogprobs(delta.logprobs, json);
  } else {
    WriteCompletionLogprobs(delta.logprobs, json);
  }
}

// What follows the opening brace of each OpenAI object.
void WriteHeader(const AnswerOptions& options, const char* object, JsonWriter* json) {
  json->Key("id").String(options.id).Key("object").String(object).Key("created").Int(options.created);
  json->Key("model").String(options.model);
}

void WriteKserve(const AnswerOptions& options, const TextDelta& delta, JsonWriter* json) {
  json->BeginObject().Key("model_name").String(options.model).Key("model_version").String("1");
  if (!options.id.empty()) json->Key("id").String(options.id);
  json->Key("text_output").String(delta.text);
  if (options.details) {
    json->Key("details").BeginObject();
    WriteFinish(delta, json);
    if (options.logprobs) {
      json->Key("logprobs").BeginArray();
      for (const LogprobEntry& entry : delta.logprobs) {
        json->BeginObject().Key("id").Int(entry.id).Key("text").String(entry.token);
        json->Key("logprob").Float(entry.logprob).EndObject();
      }
      json->EndArray();
    }
    json->EndObject();
  }
  json->EndObject();
}

// A choice of a whole answer, or of a chunk. `first`: nothing was sent for it before.
void WriteChoice(const AnswerOptions& options, const TextDelta& delta, bool chunk, bool first,
                 JsonWriter* json) {
  json->BeginObject().Key("index").Int(delta.index);
  if (options.api == Api::kCompletions) {
    json->Key("text").String(delta.text);
  } else {
    json->Key(chunk ? "delta" : "message").BeginObject();
    if (!chunk || first) json->Key("role").String("assistant");
    if (!chunk || first || !delta.text.empty()) json->Key("content").String(delta.text);
    json->EndObject();
  }
  WriteLogprobs(options, delta, json);
  WriteFinish(delta, json);
  WriteStopReason(delta, json);
  if (options.return_token_ids) {
    json->Key("token_ids");
    WriteIds(delta.token_ids, json);
    if (options.api == Api::kCompletions && first) {
      json->Key("prompt_token_ids");
      WriteIds(options.prompts[delta.prompt_index], json);
    }
  }
  json->EndObject();
}

void AppendEvent(const std::string& data, std::string* out) { absl::StrAppend(out, "data: ", data, "\n\n"); }

// One chunk with one choice, or with none and the usage.
std::string Chunk(const AnswerOptions& options, const TextDelta* delta, bool first, const Usage* usage) {
  std::string data;
  JsonWriter json(&data);
  json.BeginObject();
  WriteHeader(options, options.api == Api::kChat ? "chat.completion.chunk" : "text_completion", &json);
  json.Key("choices").BeginArray();
  if (delta != nullptr) WriteChoice(options, *delta, true, first, &json);
  json.EndArray();
  if (options.return_token_ids && options.api == Api::kChat && first) {
    json.Key("prompt_token_ids");
    WriteIds(options.prompts[0], &json);
  }
  if (usage != nullptr) {
    json.Key("usage");
    WriteUsage(*usage, &json);
  } else if (options.include_usage) {
    json.Key("usage").Null();
  }
  json.EndObject();
  return data;
}

}  // namespace

WholeAnswer::WholeAnswer(AnswerOptions options, int num_prompts) : options_(std::move(options)) {
  choices_.resize(static_cast<size_t>(num_prompts) * options_.n);
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i].index = static_cast<int>(i);
    choices_[i].prompt_index = static_cast<int>(i) / options_.n;
  }
}

void WholeAnswer::Add(GenerationEvent event) {
  if (auto* delta = std::get_if<TextDelta>(&event)) {
    TextDelta& choice = choices_[delta->index];
    choice.text += delta->text;
    choice.token_ids.insert(choice.token_ids.end(), delta->token_ids.begin(), delta->token_ids.end());
    for (LogprobEntry& entry : delta->logprobs) choice.logprobs.push_back(std::move(entry));
    choice.finish = delta->finish;
    choice.stop_string = std::move(delta->stop_string);
  } else if (auto* end = std::get_if<GenerationEnd>(&event)) {
    ended_ = true;
    status_ = std::move(end->status);
    usage_ = end->usage;
  }
}

std::string WholeAnswer::Body() const {
  std::string body;
  JsonWriter json(&body);
  if (options_.api == Api::kKserve) {
    WriteKserve(options_, choices_[0], &json);
    return body;
  }
  json.BeginObject();
  WriteHeader(options_, options_.api == Api::kChat ? "chat.completion" : "text_completion", &json);
  json.Key("choices").BeginArray();
  for (const TextDelta& choice : choices_) WriteChoice(options_, choice, false, true, &json);
  json.EndArray();
  if (options_.return_token_ids && options_.api == Api::kChat) {
    json.Key("prompt_token_ids");
    WriteIds(options_.prompts[0], &json);
  }
  json.Key("usage");
  WriteUsage(usage_, &json);
  json.EndObject();
  return body;
}

StreamAnswer::StreamAnswer(AnswerOptions options, int num_prompts)
    : options_(std::move(options)), started_(static_cast<size_t>(num_prompts) * options_.n) {}

void StreamAnswer::Add(const GenerationEvent& event, std::string* out) {
  if (const auto* prompt = std::get_if<PromptEvent>(&event)) {
    if (options_.api == Api::kChat) AddRoles(prompt->prompt_index, out);
  } else if (const auto* delta = std::get_if<TextDelta>(&event)) {
    AddDelta(*delta, out);
  } else {
    const GenerationEnd& end = std::get<GenerationEnd>(event);
    ended_ = true;
    status_ = end.status;
    usage_ = end.usage;
    if (!end.status.ok()) {
      AppendEvent(ErrorJson(Describe(end.status)), out);
    } else if (options_.include_usage && options_.api != Api::kKserve) {
      AppendEvent(Chunk(options_, nullptr, false, &usage_), out);
    }
    AppendEvent("[DONE]", out);
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
  const bool first = !started_[delta.index];
  const bool role = options_.api == Api::kChat && first;
  const bool tokens = options_.return_token_ids && !delta.token_ids.empty();
  const bool logprobs = options_.logprobs && !delta.logprobs.empty();
  // Text may be held back (half a character, the start of a stop string): nothing to say yet.
  if (delta.text.empty() && delta.finish == FinishReason::kNone && !role && !tokens && !logprobs) return;
  started_[delta.index] = true;
  if (options_.api == Api::kKserve) {
    std::string data;
    JsonWriter json(&data);
    WriteKserve(options_, delta, &json);
    return AppendEvent(data, out);
  }
  AppendEvent(Chunk(options_, &delta, first, nullptr), out);
}

}  // namespace sessa
