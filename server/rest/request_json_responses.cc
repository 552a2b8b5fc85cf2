// The body of /v1/responses, for text in and text out; see request_json.h. It becomes a chat: `instructions`
// is its system message, `input` the rest. Nothing is stored, so what refers to what was is an error.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/json/serialize.hpp"
#include "server/core/errors.h"
#include "server/rest/request_json.h"
#include "server/rest/request_json_internal.h"
#include "server/rest/unserved_fields.h"

namespace sessa {
namespace {

namespace json = boost::json;

constexpr char kLogprobs[] = "message.output_text.logprobs";

bool IsString(const json::value& value, json::string_view text) {
  return value.is_string() && json::string_view(value.get_string()) == text;
}

absl::Status ReadContent(const json::value& value, const std::string& path, ReadLog* log, std::string* out) {
  if (value.is_string()) return ReadValue(value, path, out);
  if (!value.is_array()) return TypeError(path, "a string or an array of text parts", value);
  for (size_t i = 0; i < value.get_array().size(); ++i) {
    const json::value& item = value.get_array()[i];
    const std::string part_path = absl::StrCat(path, "[", i, "]");
    if (!item.is_object()) return TypeError(part_path, "an object", item);
    Fields part(item.get_object(), part_path, log);
    std::string type, text;
    part.Read("type", &type);
    part.Read("text", &text);
    if (type != "input_text" && type != "output_text" && type != "text")
      return FieldError(part.Path("type"), "only text is supported", "unsupported_field");
    *out += text;
  }
  return absl::OkStatus();
}

absl::Status ReadItem(const json::value& value, const std::string& path, ReadLog* log, ChatMessage* out) {
  if (!value.is_object()) return TypeError(path, "an object", value);
  Fields fields(value.get_object(), path, log);
  std::string type = "message";
  fields.Read("type", &type);
  if (type != "message") return Unserved(fields.Path("type"));
  fields.Read("role", &out->role);
  if (out->role.empty()) return FieldError(fields.Path("role"), "is needed", "missing_field");
  const json::value* content = fields.Find("content");
  if (content == nullptr) return FieldError(fields.Path("content"), "is needed", "missing_field");
  return ReadContent(*content, fields.Path("content"), log, &out->content);
}

void ReadInput(Fields& fields, const Limits& limits, ReadLog* log, std::vector<ChatMessage>* out) {
  std::string instructions;
  fields.Read("instructions", &instructions);
  if (!instructions.empty()) out->push_back({"system", std::move(instructions)});
  const json::value* input = fields.Find("input");
  if (input == nullptr) return log->Fail(FieldError("input", "is needed", "missing_field"));
  if (input->is_string()) {
    log->Fail(ReadValue(*input, "input", &out->emplace_back(ChatMessage{"user", ""}).content));
    return;
  }
  if (!input->is_array()) return log->Fail(TypeError("input", "a string or an array of messages", *input));
  const json::array& items = input->get_array();
  if (items.empty()) return log->Fail(FieldError("input", "must hold at least one message", "missing_field"));
  if (out->size() + items.size() > limits.max_messages)
    return log->Fail(FieldError("input", absl::StrCat("at most ", limits.max_messages, " messages")));
  for (size_t i = 0; i < items.size() && log->status.ok(); ++i)
    log->Fail(ReadItem(items[i], absl::StrCat("input[", i, "]"), log, &out->emplace_back()));
}

// The API's flat functions, as templates know them.
void ReadTools(Fields& fields, ReadLog* log, json::array* out) {
  const json::value* tools = fields.Find("tools");
  if (tools != nullptr && !tools->is_array())
    return log->Fail(TypeError("tools", "an array of objects", *tools));
  for (size_t i = 0; tools != nullptr && i < tools->get_array().size(); ++i) {
    const json::value& tool = tools->get_array()[i];
    const std::string path = absl::StrCat("tools[", i, "]");
    if (!tool.is_object()) return log->Fail(TypeError(path, "an object", tool));
    json::object function = tool.get_object();
    const json::value* type = function.if_contains("type");
    if (type == nullptr || !IsString(*type, "function")) return log->Fail(Unserved(path + ".type"));
    function.stable_erase("type");  // the order is the template's text
    out->emplace_back(json::object{{"type", "function"}, {"function", std::move(function)}});
  }
  const json::value* choice = fields.Find("tool_choice");
  if (choice != nullptr ? !IsString(*choice, "none") && !(out->empty() && IsString(*choice, "auto"))
                        : !out->empty()) {
    log->Fail(FieldError("tool_choice", "only \"none\" is served", "unsupported_field"));
  }
}

void ReadText(Fields& fields, ReadLog* log) {
  const json::value* value = fields.Find("text");
  if (value == nullptr) return;
  if (!value->is_object()) return log->Fail(TypeError("text", "an object", *value));
  Fields text(value->get_object(), "text", log);
  const json::value* format = text.Find("format");
  if (format != nullptr) {
    const json::value* type = format->is_object() ? format->get_object().if_contains("type") : nullptr;
    if (type == nullptr || !IsString(*type, "text"))
      log->Fail(FieldError("text.format", "only {\"type\": \"text\"} is served", "unsupported_field"));
  }
  RefuseUnserved(text, log);  // verbosity
}

void ReadLogprobs(Fields& fields, ReadLog* log, GenerationRequest* r) {
  std::optional<int64_t> top;
  fields.Read("top_logprobs", &top);
  bool wanted = false;
  if (const json::value* include = fields.Find("include")) {
    if (!include->is_array()) return log->Fail(TypeError("include", "an array of strings", *include));
    for (const json::value& what : include->get_array()) wanted = wanted || IsString(what, kLogprobs);
  }
  if (top.value_or(0) < 0) {
    log->Fail(FieldError("top_logprobs", absl::StrCat("must not be negative, got ", *top)));
  } else if (top.value_or(0) > 0 && !wanted) {
    log->Fail(
        FieldError("top_logprobs", absl::StrCat("is only allowed with \"include\": [\"", kLogprobs, "\"]")));
  }
  if (wanted) r->logprobs = top.value_or(0);
  r->logprobs_name = "top_logprobs";
}

// What refers to earlier responses, or asks for what goes on without the client.
void RefuseState(Fields& fields, ReadLog* log) {
  for (const char* name : {"previous_response_id", "conversation", "prompt", "prompt_logprobs"}) {
    if (fields.Find(name) != nullptr) log->Fail(Unserved(name));
  }
  bool background = false;
  fields.Read("background", &background);
  if (background) log->Fail(Unserved("background"));
  if (const json::value* value = fields.Find("truncation"); value != nullptr && !IsString(*value, "disabled"))
    log->Fail(FieldError("truncation", "only \"disabled\" is served", "unsupported_field"));
}

// The request's members that the response repeats, without braces.
std::string Settings(const json::object& body) {
  const auto given = [&body](const char* name, json::value otherwise) {
    const json::value* value = body.if_contains(name);
    return value != nullptr && !value->is_null() ? *value : otherwise;
  };
  const json::object settings = {
      {"background", false},
      {"instructions", given("instructions", nullptr)},
      {"max_output_tokens", given("max_output_tokens", nullptr)},
      {"metadata", given("metadata", json::object())},
      {"parallel_tool_calls", given("parallel_tool_calls", true)},
      {"previous_response_id", nullptr},
      {"reasoning", given("reasoning", json::object{{"effort", nullptr}, {"summary", nullptr}})},
      {"store", false},
      {"temperature", given("temperature", nullptr)},
      {"text", json::object{{"format", json::object{{"type", "text"}}}}},
      {"tool_choice", "none"},
      {"tools", given("tools", json::array())},
      {"top_logprobs", given("top_logprobs", 0)},
      {"top_p", given("top_p", nullptr)},
      {"truncation", "disabled"},
      {"user", given("user", nullptr)}};
  const std::string text = json::serialize(settings);
  return text.substr(1, text.size() - 2);
}

}  // namespace

absl::StatusOr<ParsedGeneration> ParseResponses(const std::string& body, const Limits& limits) {
  absl::StatusOr<json::value> value = ParseBody(body, limits);
  if (!value.ok()) return value.status();
  ParsedGeneration parsed;
  ReadLog log;
  GenerationRequest& r = parsed.request;
  r.is_chat = true;
  r.prompt_name = "input";
  Fields fields(value->get_object(), "", &log);
  fields.Read("model", &r.model);
  fields.Read("user", &r.user);
  fields.Read("stream", &r.stream);
  ReadSampling(fields, &log, &r);
  r.max_tokens_name = "max_output_tokens";
  fields.Read("max_output_tokens", &r.max_tokens);
  ReadInput(fields, limits, &log, &r.chat.messages);
  ReadTools(fields, &log, &r.chat.tools);
  ReadTemplateVariables(fields, &log, &r.chat);
  if (const json::value* reasoning = fields.Find("reasoning");
      reasoning != nullptr && reasoning->is_object()) {
    const json::value* effort = reasoning->get_object().if_contains("effort");
    if (effort != nullptr && effort->is_string()) r.chat.template_kwargs.emplace("reasoning_effort", *effort);
  }
  ReadText(fields, &log);
  ReadLogprobs(fields, &log, &r);
  RefuseState(fields, &log);
  RefuseUnserved(fields, &log);
  if (r.n != 1) log.Fail(FieldError("n", "a response has one output", "unsupported_field"));
  // They change nothing here: nothing is stored, called or billed.
  for (const char* name : {"store", "metadata", "stream_options", "parallel_tool_calls", "max_tool_calls",
                           "service_tier", "safety_identifier", "prompt_cache_key"}) {
    fields.Find(name);
  }
  fields.ListIgnored();
  if (!log.status.ok()) return log.status;
  parsed.settings = Settings(value->get_object());
  parsed.known = fields.TakeKnown();
  parsed.ignored = std::move(log.ignored);
  return parsed;
}

}  // namespace sessa
