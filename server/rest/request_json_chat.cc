// The body of /v1/chat/completions; see request_json.h. Tools, documents and further variables are for the
// template; what this server cannot do (calling tools, JSON modes, other modalities) is a clear error.
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/rest/json_parse.h"
#include "server/rest/request_json.h"
#include "server/rest/request_json_internal.h"
#include "server/rest/unserved_fields.h"

namespace sessa {
namespace {

namespace json = boost::json;

bool IsEmptyArray(const json::value& value) { return value.is_array() && value.get_array().empty(); }

bool IsString(const json::value& value, json::string_view text) {
  return value.is_string() && json::string_view(value.get_string()) == text;
}

// A string, or parts of which only text is known.
absl::Status ReadContent(const json::value& value, const std::string& path, ReadLog* log, ChatMessage* out) {
  if (value.is_string()) return ReadValue(value, path, &out->content);
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
    out->content += text;
  }
  out->parts = parts;
  return absl::OkStatus();
}

// A tool and a call have this form: {"type": "function", "function": {"name": ...}}.
absl::Status CheckFunction(const json::value& value, const std::string& path) {
  if (!value.is_object()) return TypeError(path, "an object", value);
  const json::value* function = value.get_object().if_contains("function");
  if (function == nullptr || !function->is_object())
    return FieldError(absl::StrCat(path, ".function"), "must be an object");
  const json::value* name = function->get_object().if_contains("name");
  if (name == nullptr || !name->is_string() || name->get_string().empty())
    return FieldError(absl::StrCat(path, ".function.name"), "must be the function's name");
  return absl::OkStatus();
}

// The calls of an assistant's message, their arguments as the objects that templates want.
absl::Status ReadToolCalls(const json::value& value, const std::string& path, const Limits& limits,
                           json::object* out) {
  if (!value.is_array()) return TypeError(path, "an array of tool calls", value);
  json::array calls = value.get_array();
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string call_path = absl::StrCat(path, "[", i, "]");
    if (absl::Status form = CheckFunction(calls[i], call_path); !form.ok()) return form;
    json::value& arguments = calls[i].get_object()["function"].get_object()["arguments"];
    if (arguments.is_null() || IsString(arguments, "")) arguments = json::object();
    if (arguments.is_string()) {
      absl::StatusOr<json::value> parsed =
          ParseJson(std::string(arguments.get_string()), limits.max_json_depth);
      if (!parsed.ok())
        return FieldError(absl::StrCat(call_path, ".function.arguments"), "must be JSON of an object");
      arguments = *std::move(parsed);
    }
    if (!arguments.is_object())
      return TypeError(absl::StrCat(call_path, ".function.arguments"), "JSON of an object", arguments);
  }
  (*out)["tool_calls"] = std::move(calls);
  return absl::OkStatus();
}

void ReadMessage(const json::value& value, const std::string& path, const Limits& limits, ReadLog* log,
                 ChatMessage* out) {
  if (!value.is_object()) return log->Fail(TypeError(path, "an object", value));
  Fields fields(value.get_object(), path, log);
  fields.Read("role", &out->role);
  for (const auto& member : value.get_object()) {  // all of them are the template's
    const absl::string_view name(member.key().data(), member.key().size());
    if (name != "role" && name != "content" && name != "tool_calls" && !member.value().is_null())
      out->more.emplace(member.key(), member.value());
  }
  bool calls = false;
  if (const json::value* field = fields.Find("tool_calls"); field != nullptr && !IsEmptyArray(*field)) {
    log->Fail(ReadToolCalls(*field, fields.Path("tool_calls"), limits, &out->more));
    calls = true;
  }
  for (const char* name : {"function_call", "audio"}) {
    if (fields.Find(name) != nullptr) return log->Fail(Unserved(fields.Path(name)));
  }
  const json::value* content = fields.Find("content");
  if (content != nullptr) return log->Fail(ReadContent(*content, fields.Path("content"), log, out));
  if (!calls) return log->Fail(FieldError(fields.Path("content"), "is needed", "missing_field"));
  // A template may tell the two apart, as it does when transformers gives it the message.
  out->form =
      value.get_object().contains("content") ? ChatMessage::Content::kNull : ChatMessage::Content::kAbsent;
}

void ReadMessages(Fields& fields, const Limits& limits, ReadLog* log, std::vector<ChatMessage>* out) {
  const json::value* value = fields.Find("messages");
  if (value == nullptr) return;
  if (!value->is_array()) return log->Fail(TypeError("messages", "an array of messages", *value));
  if (value->get_array().size() > limits.max_messages)
    return log->Fail(FieldError("messages", absl::StrCat("at most ", limits.max_messages, " messages")));
  for (const json::value& message : value->get_array()) {
    const std::string path = absl::StrCat("messages[", out->size(), "]");
    ReadMessage(message, path, limits, log, &out->emplace_back());
    if (!log->status.ok()) return;
  }
}

// A list of objects, each of which `check` likes.
template <typename Check>
void ReadObjects(Fields& fields, const char* name, Check check, ReadLog* log, json::array* out) {
  const json::value* value = fields.Find(name);
  if (value == nullptr) return;
  if (!value->is_array()) return log->Fail(TypeError(name, "an array of objects", *value));
  for (size_t i = 0; i < value->get_array().size(); ++i) {
    log->Fail(check(value->get_array()[i], absl::StrCat(name, "[", i, "]")));
    if (!log->status.ok()) return;
  }
  *out = value->get_array();
}

void ReadTemplateKwargs(Fields& fields, ReadLog* log, json::object* out) {
  const json::value* value = fields.Find("chat_template_kwargs");
  if (value != nullptr && !value->is_object())
    return log->Fail(TypeError("chat_template_kwargs", "an object", *value));
  if (value != nullptr) *out = value->get_object();
  for (const char* name :
       {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"}) {
    if (out->contains(name))
      log->Fail(FieldError(absl::StrCat("chat_template_kwargs.", name), "is not for this field to say"));
  }
  // OpenAI's field, which is nothing but a variable of the template here, as it is with vLLM.
  std::string effort;
  fields.Read("reasoning_effort", &effort);
  if (!effort.empty()) out->emplace("reasoning_effort", effort);
}

// Tools can be shown to the model, but nobody here reads its answer for calls.
void RefuseCalling(Fields& fields, const Chat& chat, ReadLog* log) {
  const json::value* choice = fields.Find("tool_choice");
  if (choice != nullptr ? !IsString(*choice, "none") : !chat.tools.empty()) {
    log->Fail(FieldError("tool_choice",
                         "only \"none\" is served: tools go to the chat template, and the answer is text",
                         "unsupported_field"));
  }
  if (const json::value* functions = fields.Find("functions");
      functions != nullptr && !IsEmptyArray(*functions))
    log->Fail(Unserved("functions"));
  if (const json::value* call = fields.Find("function_call"); call != nullptr && !IsString(*call, "none"))
    log->Fail(Unserved("function_call"));
  if (const json::value* value = fields.Find("modalities")) {
    const bool text =
        value->is_array() && value->get_array().size() == 1 && IsString(value->get_array()[0], "text");
    if (!text) log->Fail(FieldError("modalities", "only [\"text\"] is served", "unsupported_field"));
  }
}

}  // namespace

absl::Status ReadChat(const json::object& chat, const Limits& limits, Chat* out) {
  ReadLog log;
  Fields fields(chat, "", &log);
  ReadChat(fields, limits, &log, out);
  return log.status;
}

void ReadChat(Fields& fields, const Limits& limits, ReadLog* log, Chat* out) {
  ReadMessages(fields, limits, log, &out->messages);
  ReadObjects(fields, "tools", &CheckFunction, log, &out->tools);
  ReadTemplateVariables(fields, log, out);
}

void ReadTemplateVariables(Fields& fields, ReadLog* log, Chat* out) {
  fields.Read("add_generation_prompt", &out->add_generation_prompt);
  const auto is_object = [](const json::value& value, const std::string& path) {
    return value.is_object() ? absl::OkStatus() : TypeError(path, "an object", value);
  };
  ReadObjects(fields, "documents", is_object, log, &out->documents);
  ReadTemplateKwargs(fields, log, &out->template_kwargs);
}

absl::StatusOr<ParsedGeneration> ParseChatCompletion(const std::string& body, const Limits& limits) {
  absl::StatusOr<json::value> value = ParseBody(body, limits);
  if (!value.ok()) return value.status();
  ParsedGeneration parsed;
  ReadLog log;
  GenerationRequest& r = parsed.request;
  r.is_chat = true;
  r.prompt_name = "messages";
  Fields fields(value->get_object(), "", &log);
  ReadCommon(fields, &log, &r);
  ReadSampling(fields, &log, &r);
  if (fields.Find("max_completion_tokens") != nullptr) r.max_tokens_name = "max_completion_tokens";
  fields.Read("max_completion_tokens", &r.max_tokens);  // goes before max_tokens, its old name
  ReadChat(fields, limits, &log, &r.chat);
  RefuseCalling(fields, r.chat, &log);
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
  parsed.known = fields.TakeKnown();
  parsed.ignored = std::move(log.ignored);
  return parsed;
}

}  // namespace sessa
