// The body of /v1/chat/completions; see request_json.h. What this server cannot do (tools, JSON modes, other
// modalities) is a clear error unless it asks for the default.
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/rest/json_parse.h"
#include "server/rest/request_json.h"
#include "server/rest/request_json_internal.h"

namespace sessa {
namespace {

namespace json = boost::json;

absl::Status Unsupported(const std::string& path) {
  return FieldError(path, "is not supported by this server", "unsupported_field");
}

// A string, or parts of which only text is known.
absl::Status ReadContent(const json::value& value, const std::string& path, ReadLog* log, std::string* out) {
  if (value.is_string()) return ReadValue(value, path, out);
  if (!value.is_array()) return TypeError(path, "a string or an array of text parts", value);
  const json::array& parts = value.get_array();
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part_path = absl::StrCat(path, "[", i, "]");
    if (!parts[i].is_object()) return TypeError(part_path, "an object", parts[i]);
    Fields part(parts[i].get_object(), part_path, log);
    std::string type, text;
    part.Read("type", &type);
    if (log->status.ok() && type != "text") {
      return FieldError(part.Path("type"), "only \"text\" is supported", "unsupported_field");
    }
    if (part.Find("text") == nullptr) return FieldError(part.Path("text"), "is needed", "missing_field");
    part.Read("text", &text);
    part.ListIgnored();
    *out += text;
  }
  return absl::OkStatus();
}

void ReadMessage(const json::value& value, const std::string& path, ReadLog* log, RequestMessage* out) {
  if (!value.is_object()) return log->Fail(TypeError(path, "an object", value));
  Fields fields(value.get_object(), path, log);
  fields.Read("role", &out->role);
  for (const char* name : {"tool_calls", "function_call", "audio"}) {
    const json::value* field = fields.Find(name);
    if (field == nullptr || (field->is_array() && field->get_array().empty())) continue;
    return log->Fail(Unsupported(fields.Path(name)));
  }
  const json::value* content = fields.Find("content");
  if (content == nullptr) return log->Fail(FieldError(fields.Path("content"), "is needed", "missing_field"));
  log->Fail(ReadContent(*content, fields.Path("content"), log, &out->content));
  fields.ListIgnored();
}

// Fields whose default alone is served.
void RefuseOthers(Fields& fields, ReadLog* log) {
  for (const char* name : {"tools", "functions"}) {
    const json::value* value = fields.Find(name);
    if (value != nullptr && !(value->is_array() && value->get_array().empty())) log->Fail(Unsupported(name));
  }
  for (const char* name : {"tool_choice", "function_call"}) {
    const json::value* value = fields.Find(name);
    if (value == nullptr) continue;
    // "auto" without tools is "none".
    if (!value->is_string() || (value->get_string() != "none" && value->get_string() != "auto"))
      log->Fail(Unsupported(name));
  }
  if (const json::value* value = fields.Find("modalities")) {
    const bool text = value->is_array() && value->get_array().size() == 1 &&
                      value->get_array()[0].is_string() && value->get_array()[0].get_string() == "text";
    if (!text) log->Fail(FieldError("modalities", "only [\"text\"] is served", "unsupported_field"));
  }
  if (fields.Find("audio") != nullptr) log->Fail(Unsupported("audio"));
}

}  // namespace

void ReadMessages(Fields& fields, ReadLog* log, std::vector<RequestMessage>* out) {
  const json::value* value = fields.Find("messages");
  if (value == nullptr) return;
  if (!value->is_array()) return log->Fail(TypeError("messages", "an array of messages", *value));
  for (const json::value& message : value->get_array()) {
    const std::string path = absl::StrCat("messages[", out->size(), "]");
    ReadMessage(message, path, log, &out->emplace_back());
    if (!log->status.ok()) return;
  }
}

absl::StatusOr<ParsedGeneration> ParseChatCompletion(const std::string& body, const Limits& limits) {
  absl::StatusOr<json::value> value = ParseBody(body, limits);
  if (!value.ok()) return value.status();
  ParsedGeneration parsed;
  ReadLog log;
  GenerationRequest& r = parsed.request;
  r.is_chat = true;
  Fields fields(value->get_object(), "", &log);
  ReadCommon(fields, &log, &r);
  ReadSampling(fields, &log, &r);
  if (fields.Find("max_completion_tokens") != nullptr) r.max_tokens_name = "max_completion_tokens";
  fields.Read("max_completion_tokens", &r.max_tokens);  // goes before max_tokens, its old name
  ReadMessages(fields, &log, &r.messages);
  fields.Read("add_generation_prompt", &r.add_generation_prompt);
  RefuseOthers(fields, &log);
  bool logprobs = false;
  std::optional<int64_t> top_logprobs;
  fields.Read("logprobs", &logprobs);
  fields.Read("top_logprobs", &top_logprobs);
  if (top_logprobs.value_or(0) < 0) {
    log.Fail(FieldError("top_logprobs", absl::StrCat("must not be negative, got ", *top_logprobs)));
  } else if (top_logprobs.value_or(0) > 0 && !logprobs) {
    log.Fail(FieldError("top_logprobs", "is only allowed with \"logprobs\": true"));
  }
  if (logprobs) r.logprobs = top_logprobs.value_or(0);
  r.logprobs_name = "top_logprobs";
  fields.ListIgnored();
  if (!log.status.ok()) return log.status;
  parsed.ignored = std::move(log.ignored);
  return parsed;
}

}  // namespace sessa
