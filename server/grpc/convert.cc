// See convert.h.
#include "server/grpc/convert.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/core/errors.h"
#include "server/rest/json_parse.h"
#include "server/rest/request_json.h"

namespace sessa {
namespace {

namespace pb = sessa::v1;
namespace json = boost::json;

void FromProto(const pb::Sampling& sampling, GenerationRequest* request) {
  if (sampling.has_max_tokens()) request->max_tokens = sampling.max_tokens();
  request->min_tokens = sampling.min_tokens();
  if (sampling.has_n()) request->n = sampling.n();
  if (sampling.has_temperature()) request->temperature = sampling.temperature();
  if (sampling.has_top_p()) request->top_p = sampling.top_p();
  if (sampling.has_min_p()) request->min_p = sampling.min_p();
  if (sampling.has_top_k()) request->top_k = sampling.top_k();
  request->presence_penalty = sampling.presence_penalty();
  request->frequency_penalty = sampling.frequency_penalty();
  if (sampling.has_repetition_penalty()) request->repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_seed()) request->seed = sampling.seed();
  request->stop.assign(sampling.stop().begin(), sampling.stop().end());
  request->stop_token_ids.assign(sampling.stop_token_ids().begin(), sampling.stop_token_ids().end());
  request->allowed_token_ids.assign(sampling.allowed_token_ids().begin(), sampling.allowed_token_ids().end());
  for (const pb::LogitBias& bias : sampling.logit_bias()) {
    request->logit_bias.emplace_back(bias.token_id(), bias.bias());
  }
  request->include_stop_str_in_output = sampling.include_stop_str_in_output();
  request->ignore_eos = sampling.ignore_eos();
  if (sampling.has_logprobs()) {
    // Core writes "none" as -1; a client that sends a negative number must hear that it is wrong, not get
    // none.
    request->logprobs = sampling.logprobs() < 0 ? INT64_MIN : sampling.logprobs();
  }
  if (sampling.has_num_speculative_tokens())
    request->num_speculative_tokens = sampling.num_speculative_tokens();
  if (sampling.has_prompt_logprobs()) {
    request->prompt_logprobs = sampling.prompt_logprobs() < 0 ? INT64_MIN : sampling.prompt_logprobs();
  }
}

// The value of a field that is a JSON text.
absl::Status ReadJson(const std::string& text, const std::string& path, const Limits& limits,
                      json::value* out) {
  absl::StatusOr<json::value> value = ParseJson(text, limits.max_json_depth);
  if (!value.ok()) {
    const absl::string_view why = value.status().message();
    return FieldError(path,
                      absl::StrCat("must be JSON: ", absl::StripPrefix(why, "The body is not valid JSON: ")));
  }
  *out = *std::move(value);
  return absl::OkStatus();
}

// A message as REST has it, so that both are judged by the same code.
absl::StatusOr<json::object> MessageJson(const pb::ChatMessage& message, const std::string& path,
                                         const Limits& limits) {
  json::object out{{"role", message.role()}};
  // A client that knows of no unset content means an empty one by it.
  if (message.has_content() || message.tool_calls().empty()) {
    out["content"] = message.content();
  } else {
    out["content"] = nullptr;
  }
  if (!message.name().empty()) out["name"] = message.name();
  if (!message.tool_call_id().empty()) out["tool_call_id"] = message.tool_call_id();
  for (const pb::ToolCall& call : message.tool_calls()) {
    json::object function{{"name", call.name()}, {"arguments", call.arguments()}};
    json::object object;
    if (!call.id().empty()) object["id"] = call.id();
    object["type"] = "function";
    object["function"] = std::move(function);
    json::value& calls = out["tool_calls"];
    (calls.is_array() ? calls.get_array() : calls.emplace_array()).push_back(std::move(object));
  }
  if (message.more().empty()) return out;
  json::value more;
  const std::string more_path = path + ".more";
  if (absl::Status read = ReadJson(message.more(), more_path, limits, &more); !read.ok()) return read;
  if (!more.is_object()) return FieldError(more_path, "must be JSON of an object");
  for (auto& member : more.get_object()) {
    for (const char* field : {"role", "content", "name", "tool_call_id", "tool_calls"}) {
      if (member.key() == field) return FieldError(more_path, absl::StrCat(field, " has a field of its own"));
    }
    out.emplace(member.key(), std::move(member.value()));
  }
  return out;
}

}  // namespace

absl::StatusOr<Chat> FromProto(const pb::Chat& chat, const Limits& limits) {
  // Each is a few bytes in the message, and hundreds as JSON.
  size_t num_calls = 0;
  for (const pb::ChatMessage& message : chat.messages()) num_calls += message.tool_calls_size();
  if (static_cast<size_t>(chat.messages_size()) > limits.max_messages)
    return FieldError("messages", absl::StrCat("at most ", limits.max_messages, " messages"));
  if (num_calls > limits.max_messages)
    return FieldError("messages", absl::StrCat("at most ", limits.max_messages, " tool_calls in all"));
  json::object object;
  json::array& messages = object["messages"].emplace_array();
  messages.reserve(chat.messages_size());
  for (int i = 0; i < chat.messages_size(); ++i) {
    absl::StatusOr<json::object> message =
        MessageJson(chat.messages(i), absl::StrCat("messages[", i, "]"), limits);
    if (!message.ok()) return message.status();
    messages.push_back(*std::move(message));
  }
  if (chat.has_add_generation_prompt()) object["add_generation_prompt"] = chat.add_generation_prompt();
  const std::pair<const char*, const std::string&> texts[] = {
      {"tools", chat.tools()},
      {"documents", chat.documents()},
      {"chat_template_kwargs", chat.chat_template_kwargs()}};
  for (const auto& [name, text] : texts) {
    if (text.empty()) continue;
    if (absl::Status read = ReadJson(text, name, limits, &object[name]); !read.ok()) return read;
  }
  Chat out;
  if (absl::Status read = ReadChat(object, limits, &out); !read.ok()) return read;
  return out;
}

absl::StatusOr<GenerationRequest> FromProto(const pb::GenerateRequest& message, const Limits& limits) {
  GenerationRequest request;
  request.model = message.model();
  switch (message.prompt_case()) {
    case pb::GenerateRequest::kText: request.prompts.emplace_back(message.text()); break;
    case pb::GenerateRequest::kTokenIds: {
      const auto& ids = message.token_ids().ids();
      request.prompts.emplace_back(std::vector<int32_t>(ids.begin(), ids.end()));
      break;
    }
    case pb::GenerateRequest::kChat: {
      request.is_chat = true;
      request.prompt_name = "messages";
      absl::StatusOr<Chat> chat = FromProto(message.chat(), limits);
      if (!chat.ok()) return chat.status();
      request.chat = *std::move(chat);
      break;
    }
    case pb::GenerateRequest::PROMPT_NOT_SET:
      return FieldError("prompt", "one of text, token_ids and chat must be set");
  }
  FromProto(message.sampling(), &request);
  request.stream = true;
  request.include_usage = true;
  request.return_token_ids = true;
  request.echo = message.echo();
  if (message.has_truncate_prompt_tokens()) request.truncate_prompt_tokens = message.truncate_prompt_tokens();
  if (message.has_add_special_tokens()) request.add_special_tokens = message.add_special_tokens();
  if (message.has_skip_special_tokens()) request.skip_special_tokens = message.skip_special_tokens();
  request.priority = message.priority();
  request.user = message.user();
  return request;
}

}  // namespace sessa
