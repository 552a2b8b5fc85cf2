// See openai_json.h. Chunks are parsed into a buffer on the stack: 1 to 2 microseconds for a usual one of 250
// bytes.
#include "loadtest/openai_json.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "boost/json.hpp"

namespace sessa::loadtest {
namespace {

namespace json = boost::json;

void AppendString(absl::string_view text, std::string* out) {
  absl::StrAppend(out, json::serialize(json::string(json::string_view(text.data(), text.size()))));
}

void AppendText(const Segment& segment, std::string* out) {
  out->append(segment.text);
  for (const int32_t id : segment.ids) AppendWord(id, out);
}

const char* RoleName(Segment::Role role) {
  switch (role) {
    case Segment::Role::kSystem: return "system";
    case Segment::Role::kUser: return "user";
    case Segment::Role::kAssistant: return "assistant";
  }
  return "user";
}

void AppendMessages(const Call& call, std::string* body) {
  absl::StrAppend(body, "\"messages\":[");
  for (const Segment& segment : call.prompt) {
    std::string text;
    AppendText(segment, &text);
    absl::StrAppend(body, body->back() == '[' ? "" : ",", "{\"role\":\"", RoleName(segment.role),
                    "\",\"content\":");
    AppendString(text, body);
    *body += '}';
  }
  *body += ']';
}

void AppendPrompt(const RequestOptions& options, const Call& call, std::string* body) {
  absl::StrAppend(body, "\"prompt\":");
  if (options.prompt_as_text) {
    std::string text;
    for (const Segment& segment : call.prompt) AppendText(segment, &text);
    return AppendString(text, body);
  }
  *body += '[';
  for (const Segment& segment : call.prompt) {
    for (const int32_t id : segment.ids) absl::StrAppend(body, id, ",");
  }
  if (body->back() == ',') body->pop_back();
  *body += ']';
}

// The member, or null when `value` is no object or has no such member.
const json::value* Member(const json::value& value, json::string_view key) {
  const json::object* object = value.if_object();
  return object == nullptr ? nullptr : object->if_contains(key);
}

void ReadCount(const json::value& object, json::string_view key, int* count) {
  const json::value* value = Member(object, key);
  if (value != nullptr && value->is_int64()) *count = static_cast<int>(value->get_int64());
}

std::string ReadText(const json::value& object, json::string_view key) {
  const json::value* value = Member(object, key);
  if (value == nullptr || value->is_null()) return "";
  if (const json::string* text = value->if_string()) return std::string(text->data(), text->size());
  return json::serialize(*value);
}

void ReadUsage(const json::value& usage, StreamChunk* chunk) {
  ReadCount(usage, "prompt_tokens", &chunk->prompt_tokens);
  ReadCount(usage, "completion_tokens", &chunk->completion_tokens);
  if (const json::value* details = Member(usage, "prompt_tokens_details"))
    ReadCount(*details, "cached_tokens", &chunk->cached_tokens);
}

void ReadChoice(const json::value& choice, bool keep_answer, StreamChunk* chunk) {
  chunk->finish_reason = ReadText(choice, "finish_reason");
  bool has_text = false;
  auto read_text = [&](const json::value& object, json::string_view key) {
    const json::value* value = Member(object, key);
    const json::string* text = value == nullptr ? nullptr : value->if_string();
    if (text == nullptr || text->empty()) return;
    has_text = true;
    if (keep_answer) chunk->text.append(text->data(), text->size());
  };
  read_text(choice, "text");
  if (const json::value* delta = Member(choice, "delta")) {
    for (const char* key : {"content", "reasoning_content", "reasoning"}) read_text(*delta, key);
    const json::value* calls = Member(*delta, "tool_calls");
    has_text |= calls != nullptr && calls->is_array();
  }
  const json::value* ids = Member(choice, "token_ids");
  if (ids == nullptr || !ids->is_array()) {
    chunk->num_tokens = has_text ? 1 : 0;
    return;
  }
  chunk->counted = true;
  chunk->num_tokens = static_cast<int>(ids->get_array().size());
  for (const json::value& id : ids->get_array()) {
    if (keep_answer && id.is_int64()) chunk->token_ids.push_back(static_cast<int32_t>(id.get_int64()));
  }
}

}  // namespace

void AppendWord(int32_t id, std::string* text) {
  static constexpr const char* kWords[] = {
      " the",   " of",    " and",  " to",   " in",    " is",   " that", " for",  " it",   " as",   " was",
      " with",  " be",    " by",   " on",   " not",   " he",   " this", " are",  " or",   " his",  " from",
      " at",    " which", " but",  " have", " an",    " had",  " they", " you",  " were", " one",  " all",
      " we",    " can",   " her",  " has",  " there", " been", " if",   " more", " when", " will", " would",
      " who",   " so",    " no",   " out",  " up",    " into", " than", " them", " time", " only", " some",
      " could", " other", " then", " now",  " two",   " may",  " like", " any",  " new"};
  text->append(kWords[static_cast<uint32_t>(id) % std::size(kWords)]);
}

std::string RequestBody(const RequestOptions& options, const Call& call) {
  size_t num_ids = 0;
  for (const Segment& segment : call.prompt) num_ids += segment.ids.size();
  std::string body = "{";
  body.reserve(num_ids * 7 + 400);
  if (!options.model.empty()) {
    body += "\"model\":";
    AppendString(options.model, &body);
    body += ',';
  }
  if (options.chat) {
    AppendMessages(call, &body);
  } else {
    AppendPrompt(options, call, &body);
  }
  absl::StrAppend(
      &body, ",\"max_tokens\":", call.record.output_tokens,
      ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"temperature\":", options.temperature);
  if (options.ignore_eos) body += ",\"ignore_eos\":true";
  if (options.return_token_ids) body += ",\"return_token_ids\":true";
  if (!options.extra_body.empty()) absl::StrAppend(&body, ",", options.extra_body);
  body += '}';
  return body;
}

StreamChunk ParseChunk(absl::string_view data, bool keep_answer) {
  std::array<unsigned char, 16 << 10> stack;
  json::monotonic_resource memory(stack.data(), stack.size());
  boost::system::error_code error;
  const json::value value = json::parse({data.data(), data.size()}, error, &memory);
  StreamChunk chunk;
  if (error || !value.is_object()) {
    chunk.kind = StreamChunk::Kind::kUnreadable;
    chunk.error = absl::StrCat("an event that is not a JSON object: ", data.substr(0, 100));
    return chunk;
  }
  if (const json::value* failure = Member(value, "error"); failure != nullptr && !failure->is_null()) {
    chunk.kind = StreamChunk::Kind::kError;
    chunk.error = failure->is_object() ? ReadText(*failure, "message") : ReadText(value, "error");
    chunk.error_code = ReadText(*failure, "code");
    chunk.error_type = ReadText(*failure, "type");
    return chunk;
  }
  const json::value* choices = Member(value, "choices");
  if (choices != nullptr && choices->is_array() && !choices->get_array().empty())
    ReadChoice(choices->get_array().front(), keep_answer, &chunk);
  if (const json::value* usage = Member(value, "usage")) ReadUsage(*usage, &chunk);
  return chunk;
}

std::string ErrorMessage(absl::string_view body) {
  boost::system::error_code error;
  const json::value value = json::parse({body.data(), body.size()}, error);
  std::string message;
  if (!error) {
    if (const json::value* failure = Member(value, "error")) {
      message = failure->is_object() ? ReadText(*failure, "message") : ReadText(value, "error");
    }
    if (message.empty()) message = ReadText(value, "message");
    if (message.empty()) message = ReadText(value, "detail");
  }
  return message.empty() ? std::string(body.substr(0, 200)) : message;
}

}  // namespace sessa::loadtest
