// See answer_json.h.
#include "server/rest/answer_json.h"

#include <set>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

void AppendTo(std::string* out, absl::string_view text) { out->append(text.data(), text.size()); }
void AppendTo(absl::Cord* out, absl::string_view text) { out->Append(text); }
void AppendTo(absl::Cord* out, const absl::Cord& text) { out->Append(text); }

std::string JoinIds(const std::vector<int32_t>& ids) {
  std::string out;
  for (const int32_t id : ids) absl::StrAppend(&out, out.empty() ? "" : ",", id);
  return out;
}

// /v1/completions: parallel arrays; the token itself is among its top_logprobs.
void RenderCompletionLogprobs(const std::vector<LogprobEntry>& entries, ChoiceParts<std::string>* parts) {
  JsonWriter tokens(&parts->tokens), logprobs(&parts->token_logprobs), tops(&parts->top_logprobs);
  JsonWriter offsets(&parts->text_offsets);
  for (const LogprobEntry& entry : entries) {
    tokens.String(entry.token);
    offsets.Int(entry.text_offset);
    if (!entry.has_logprob) {
      logprobs.Null();
      tops.Null();
      continue;
    }
    logprobs.Float(entry.logprob);
    std::set<std::string> written;  // two ids may print the same: the better one is kept
    tops.BeginObject();
    for (const TopLogprob& top : entry.top) {
      if (written.insert(top.token).second) tops.Key(top.token).Float(top.logprob);
    }
    if (written.insert(entry.token).second) tops.Key(entry.token).Float(entry.logprob);
    tops.EndObject();
  }
}

void WriteChatToken(const TopLogprob& token, JsonWriter* json) {
  json->Key("token").String(token.token).Key("logprob").Float(token.logprob).Key("bytes").BeginArray();
  for (const char byte : token.bytes) json->Int(static_cast<unsigned char>(byte));
  json->EndArray();
}

void RenderChatLogprobs(const std::vector<LogprobEntry>& entries, std::string* out) {
  JsonWriter json(out);
  for (const LogprobEntry& entry : entries) {
    json.BeginObject();
    WriteChatToken(entry, &json);
    json.Key("top_logprobs").BeginArray();
    for (const TopLogprob& top : entry.top) {
      json.BeginObject();
      WriteChatToken(top, &json);
      json.EndObject();
    }
    json.EndArray().EndObject();
  }
}

void RenderKserveLogprobs(const std::vector<LogprobEntry>& entries, std::string* out) {
  JsonWriter json(out);
  for (const LogprobEntry& entry : entries) {
    json.BeginObject().Key("id").Int(entry.id).Key("text").String(entry.token);
    json.Key("logprob").Float(entry.logprob).EndObject();
  }
}

std::string FinishMember(const ChoiceEnd& end) {
  switch (end.finish) {
    case FinishReason::kNone: return R"("finish_reason":null)";
    case FinishReason::kStop: return R"("finish_reason":"stop")";
    case FinishReason::kLength: return R"("finish_reason":"length")";
  }
  return "";
}

// vLLM's extension: the stop string that matched; null for eos.
std::string StopMember(const ChoiceEnd& end) {
  std::string out = R"("stop_reason":)";
  JsonWriter json(&out);
  end.stop_string.empty() ? json.Null() : json.String(end.stop_string);
  return out;
}

template <typename Text>
void WriteLogprobs(const AnswerOptions& options, const ChoiceParts<Text>& parts, Text* out) {
  if (!options.logprobs) {
    AppendTo(out, R"("logprobs":null,)");
  } else if (options.api == Api::kChat) {
    AppendTo(out, R"("logprobs":{"content":[)");
    AppendTo(out, parts.entries);
    AppendTo(out, R"(],"refusal":null},)");
  } else {
    AppendTo(out, R"("logprobs":{"tokens":[)");
    AppendTo(out, parts.tokens);
    AppendTo(out, R"(],"token_logprobs":[)");
    AppendTo(out, parts.token_logprobs);
    AppendTo(out, R"(],"top_logprobs":[)");
    AppendTo(out, parts.top_logprobs);
    AppendTo(out, R"(],"text_offset":[)");
    AppendTo(out, parts.text_offsets);
    AppendTo(out, "]},");
  }
}

template <typename Text>
void WriteKserve(const AnswerOptions& options, const ChoiceParts<Text>& parts, const ChoiceEnd& end,
                 Text* out) {
  std::string head;
  JsonWriter json(&head);
  json.BeginObject().Key("model_name").String(options.model).Key("model_version").String("1");
  if (!options.id.empty()) json.Key("id").String(options.id);
  AppendTo(out, head);
  AppendTo(out, R"(,"text_output":")");
  AppendTo(out, parts.text);
  AppendTo(out, "\"");
  if (options.details) {
    AppendTo(out, absl::StrCat(R"(,"details":{)", FinishMember(end)));
    if (options.logprobs) {
      AppendTo(out, R"(,"logprobs":[)");
      AppendTo(out, parts.entries);
      AppendTo(out, "]");
    }
    AppendTo(out, "}");
  }
  AppendTo(out, "}");
}

template <typename Text>
void JoinList(const Text& members, absl::Cord* all) {
  if (members.empty()) return;
  if (!all->empty()) all->Append(",");
  AppendTo(all, members);
}

}  // namespace

ChoiceParts<std::string> RenderDelta(const AnswerOptions& options, const TextDelta& delta) {
  ChoiceParts<std::string> parts;
  if (!delta.text.empty()) {
    JsonWriter(&parts.text).String(delta.text);
    parts.text.pop_back();  // the quotes
    parts.text.erase(0, 1);
  }
  if (options.return_token_ids) parts.token_ids = JoinIds(delta.token_ids);
  if (!options.logprobs) return parts;
  switch (options.api) {
    case Api::kCompletions: RenderCompletionLogprobs(delta.logprobs, &parts); break;
    case Api::kChat:
    case Api::kResponses: RenderChatLogprobs(delta.logprobs, &parts.entries); break;
    case Api::kKserve: RenderKserveLogprobs(delta.logprobs, &parts.entries); break;
    case Api::kKserveInfer: break;  // InferAnswer's
  }
  return parts;
}

// An object for each token: itself first, then its rivals that are others, by token id.
ChoiceParts<std::string> RenderPromptLogprobs(const PromptLogprobs& piece) {
  ChoiceParts<std::string> parts;
  JsonWriter json(&parts.prompt_logprobs);
  const auto write = [&json](const TopLogprob& token, int rank) {
    json.Key(absl::StrCat(token.id)).BeginObject().Key("logprob").Float(token.logprob);
    json.Key("rank").Int(rank).Key("decoded_token").String(token.token).EndObject();
  };
  for (const LogprobEntry& entry : piece.tokens) {
    if (!entry.has_logprob) {
      json.Null();
      continue;
    }
    json.BeginObject();
    write(entry, entry.rank);
    for (size_t i = 0; i < entry.top.size(); ++i) {
      if (entry.top[i].id != entry.id) write(entry.top[i], static_cast<int>(i) + 1);
    }
    json.EndObject();
  }
  return parts;
}

template <typename Text>
void WritePromptLogprobs(const AnswerOptions& options, const ChoiceParts<Text>& parts, Text* out) {
  if (!options.prompt_logprobs) return;
  AppendTo(out, R"(,"prompt_logprobs":[)");
  AppendTo(out, parts.prompt_logprobs);
  AppendTo(out, "]");
}
template void WritePromptLogprobs(const AnswerOptions&, const ChoiceParts<absl::Cord>&, absl::Cord*);

template <typename Text>
void Join(const ChoiceParts<Text>& parts, ChoiceParts<absl::Cord>* all) {
  AppendTo(&all->text, parts.text);
  JoinList(parts.tokens, &all->tokens);
  JoinList(parts.token_logprobs, &all->token_logprobs);
  JoinList(parts.top_logprobs, &all->top_logprobs);
  JoinList(parts.text_offsets, &all->text_offsets);
  JoinList(parts.entries, &all->entries);
  JoinList(parts.token_ids, &all->token_ids);
  JoinList(parts.prompt_logprobs, &all->prompt_logprobs);
}
template void Join(const ChoiceParts<std::string>&, ChoiceParts<absl::Cord>*);
template void Join(const ChoiceParts<absl::Cord>&, ChoiceParts<absl::Cord>*);

template <typename Text>
void WriteChoice(const AnswerOptions& options, const ChoicePlace& place, const ChoiceParts<Text>& parts,
                 const ChoiceEnd& end, Text* out) {
  if (options.api == Api::kKserve) return WriteKserve(options, parts, end, out);
  AppendTo(out, absl::StrCat(R"({"index":)", place.index));
  if (options.api == Api::kCompletions) {
    AppendTo(out, R"(,"text":")");
    AppendTo(out, parts.text);
    AppendTo(out, R"(",)");
  } else {
    AppendTo(out, place.chunk ? R"(,"delta":{)" : R"(,"message":{)");
    const bool role = !place.chunk || place.first;
    if (role) AppendTo(out, R"("role":"assistant")");
    if (role || !parts.text.empty()) {
      AppendTo(out, role ? R"(,"content":")" : R"("content":")");
      AppendTo(out, parts.text);
      AppendTo(out, "\"");
    }
    AppendTo(out, "},");
  }
  WriteLogprobs(options, parts, out);
  AppendTo(out, absl::StrCat(FinishMember(end), ",", StopMember(end)));
  if (options.return_token_ids) {
    AppendTo(out, R"(,"token_ids":[)");
    AppendTo(out, parts.token_ids);
    AppendTo(out, "]");
    if (options.api == Api::kCompletions && place.first) {
      AppendTo(out, absl::StrCat(",", PromptIdsMember(options, place.prompt_index)));
    }
  }
  if (options.api == Api::kCompletions) WritePromptLogprobs(options, parts, out);
  AppendTo(out, "}");
}
template void WriteChoice(const AnswerOptions&, const ChoicePlace&, const ChoiceParts<std::string>&,
                          const ChoiceEnd&, std::string*);
template void WriteChoice(const AnswerOptions&, const ChoicePlace&, const ChoiceParts<absl::Cord>&,
                          const ChoiceEnd&, absl::Cord*);

std::string PromptIdsMember(const AnswerOptions& options, int prompt_index) {
  return absl::StrCat(R"("prompt_token_ids":[)", JoinIds(options.prompts[prompt_index]), "]");
}

std::string AnswerHead(const AnswerOptions& options, const char* object) {
  std::string head;
  JsonWriter json(&head);
  json.BeginObject().Key("id").String(options.id).Key("object").String(object);
  json.Key("created").Int(options.created).Key("model").String(options.model);
  return head + ",";
}

std::string UsageJson(const Usage& usage) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("prompt_tokens").Int(usage.prompt_tokens);
  json.Key("completion_tokens").Int(usage.completion_tokens);
  json.Key("total_tokens").Int(usage.prompt_tokens + usage.completion_tokens);
  json.Key("prompt_tokens_details").BeginObject().Key("cached_tokens").Int(usage.cached_tokens).EndObject();
  json.EndObject();
  return out;
}

}  // namespace sessa
