// See request_json.h: what all bodies share, /v1/completions, KServe, /tokenize and /detokenize.
#include "server/rest/request_json.h"

#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/rest/json_parse.h"
#include "server/rest/request_json_internal.h"
#include "server/rest/unserved_fields.h"

namespace sessa {
namespace {

namespace json = boost::json;

void ReadStop(Fields& fields, ReadLog* log, std::vector<std::string>* stop) {
  const json::value* value = fields.Find("stop");
  if (value == nullptr) return;
  if (value->is_string()) {
    log->Fail(ReadValue(*value, fields.Path("stop"), &stop->emplace_back()));
    return;
  }
  if (!value->is_array())
    return log->Fail(TypeError(fields.Path("stop"), "a string or an array of strings", *value));
  for (const json::value& item : value->get_array()) {
    const std::string path = absl::StrCat(fields.Path("stop"), "[", stop->size(), "]");
    log->Fail(ReadValue(item, path, &stop->emplace_back()));
    if (!log->status.ok()) return;
  }
}

void ReadLogitBias(Fields& fields, ReadLog* log, std::vector<std::pair<int64_t, double>>* out) {
  const json::value* value = fields.Find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object())
    return log->Fail(TypeError(fields.Path("logit_bias"), "an object of token ids and numbers", *value));
  for (const auto& member : value->get_object()) {
    const std::string key(member.key().data(), member.key().size());
    int64_t id = 0;
    // Written the one way that an integer has: "7" and "07" would otherwise be the same token twice.
    if (!absl::SimpleAtoi(key, &id) || absl::StrCat(id) != key) {
      return log->Fail(FieldError(fields.Path("logit_bias"), "its keys must be token ids"));
    }
    double bias = 0;
    log->Fail(ReadValue(member.value(), absl::StrCat(fields.Path("logit_bias"), ".", key), &bias));
    if (!log->status.ok()) return;
    out->emplace_back(id, bias);
  }
}

absl::Status ReadTokenPrompt(const json::array& array, const std::string& path, std::vector<int32_t>* out) {
  out->reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    int64_t id = 0;
    if (array[i].is_int64()) {
      id = array[i].get_int64();
    } else if (absl::Status read = ReadValue(array[i], absl::StrCat(path, "[", i, "]"), &id); !read.ok()) {
      return read;
    }
    if (id < std::numeric_limits<int32_t>::min() || id > std::numeric_limits<int32_t>::max()) {
      return FieldError(path.substr(0, path.find('[')),
                        absl::StrCat("token id ", id, " at ", path, "[", i, "] is out of range"));
    }
    out->push_back(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadPrompts(const json::value& value, const std::string& name, std::vector<PromptInput>* out) {
  constexpr char kWhat[] = "a string, an array of strings, an array of token ids or an array of such arrays";
  if (value.is_string()) {
    std::string text;
    absl::Status read = ReadValue(value, name, &text);
    out->emplace_back(std::move(text));
    return read;
  }
  if (!value.is_array()) return TypeError(name, kWhat, value);
  const json::array& array = value.get_array();
  if (array.empty()) return FieldError(name, "must not be empty");
  if (array[0].is_number()) {
    std::vector<int32_t> ids;
    absl::Status read = ReadTokenPrompt(array, name, &ids);
    out->emplace_back(std::move(ids));
    return read;
  }
  for (size_t i = 0; i < array.size(); ++i) {
    const std::string path = absl::StrCat(name, "[", i, "]");
    if (array[0].is_string()) {
      std::string text;
      if (absl::Status read = ReadValue(array[i], path, &text); !read.ok()) return read;
      out->emplace_back(std::move(text));
    } else if (array[0].is_array()) {
      if (!array[i].is_array()) return TypeError(path, "an array of token ids", array[i]);
      std::vector<int32_t> ids;
      if (absl::Status read = ReadTokenPrompt(array[i].get_array(), path, &ids); !read.ok()) return read;
      out->emplace_back(std::move(ids));
    } else {
      return TypeError(path, "a string, a token id or an array of token ids", array[i]);
    }
  }
  return absl::OkStatus();
}

void ReadTimeout(Fields& fields, ReadLog* log, std::optional<absl::Duration>* timeout) {
  const json::value* value = fields.Find("timeout");
  if (value == nullptr) return;
  double seconds = 0;
  log->Fail(ReadValue(*value, fields.Path("timeout"), &seconds));
  *timeout = absl::Seconds(seconds);
}

void ReadSeed(Fields& fields, ReadLog* log, std::optional<uint64_t>* seed) {
  const json::value* value = fields.Find("seed");
  if (value == nullptr) return;
  int64_t number = 0;
  if (value->is_uint64()) {
    *seed = value->get_uint64();
  } else if (absl::Status read = ReadValue(*value, fields.Path("seed"), &number); !read.ok()) {
    log->Fail(read);
  } else if (number != -1) {
    *seed = static_cast<uint64_t>(number);
  }
}

absl::StatusOr<json::value> ParseBody(const std::string& body, const Limits& limits) {
  absl::StatusOr<json::value> value = ParseJson(body, limits.max_json_depth);
  if (value.ok() && !value->is_object()) {
    return Annotate(absl::InvalidArgumentError("The body must be a JSON object."), "", "invalid_json");
  }
  return value;
}

void ReadSampling(Fields& fields, ReadLog* log, GenerationRequest* r) {
  fields.Read("max_tokens", &r->max_tokens);
  fields.Read("min_tokens", &r->min_tokens);
  fields.Read("n", &r->n);
  fields.Read("best_of", &r->best_of);
  fields.Read("temperature", &r->temperature);
  fields.Read("top_p", &r->top_p);
  fields.Read("min_p", &r->min_p);
  fields.Read("top_k", &r->top_k);
  fields.Read("presence_penalty", &r->presence_penalty);
  fields.Read("frequency_penalty", &r->frequency_penalty);
  fields.Read("repetition_penalty", &r->repetition_penalty);
  ReadSeed(fields, log, &r->seed);
  ReadStop(fields, log, &r->stop);
  fields.Read("stop_token_ids", &r->stop_token_ids);
  fields.Read("allowed_token_ids", &r->allowed_token_ids);
  ReadLogitBias(fields, log, &r->logit_bias);
  fields.Read("include_stop_str_in_output", &r->include_stop_str_in_output);
  fields.Read("ignore_eos", &r->ignore_eos);
  fields.Read("truncate_prompt_tokens", &r->truncate_prompt_tokens);
  fields.Read("add_special_tokens", &r->add_special_tokens);
  fields.Read("skip_special_tokens", &r->skip_special_tokens);
  fields.Read("priority", &r->priority);
  fields.Read("num_speculative_tokens", &r->num_speculative_tokens);
  ReadTimeout(fields, log, &r->timeout);
}

void ReadCommon(Fields& fields, ReadLog* log, GenerationRequest* r) {
  fields.Read("model", &r->model);
  fields.Read("user", &r->user);
  fields.Read("echo", &r->echo);
  fields.Read("return_token_ids", &r->return_token_ids);
  fields.Read("stream", &r->stream);
  if (const json::value* value = fields.Find("stream_options")) {
    if (!value->is_object()) return log->Fail(TypeError("stream_options", "an object", *value));
    if (!r->stream) return log->Fail(FieldError("stream_options", "is only allowed with \"stream\": true"));
    Fields options(value->get_object(), "stream_options", log);
    options.Read("include_usage", &r->include_usage);
    options.Read("continuous_usage_stats", &r->continuous_usage);
    r->continuous_usage = r->continuous_usage && r->include_usage;  // as vLLM has it
    options.ListIgnored();
  }
  if (const json::value* value = fields.Find("response_format")) {
    std::string type;
    if (!value->is_object()) return log->Fail(TypeError("response_format", "an object", *value));
    Fields format(value->get_object(), "response_format", log);
    format.Read("type", &type);
    if (log->status.ok() && type != "text") {
      log->Fail(FieldError("response_format", "only {\"type\": \"text\"} is served", "unsupported_field"));
    }
  }
  std::optional<int64_t> prompt_logprobs;
  fields.Read("prompt_logprobs", &prompt_logprobs);
  if (prompt_logprobs.value_or(0) < 0)  // vLLM's -1, the whole vocabulary, is more than is ever served
    log->Fail(FieldError("prompt_logprobs", absl::StrCat("must not be negative, got ", *prompt_logprobs)));
  if (prompt_logprobs.has_value() && r->stream)
    log->Fail(FieldError("prompt_logprobs", "is not served with \"stream\": true", "unsupported_field"));
  r->prompt_logprobs = prompt_logprobs.value_or(-1);
  RefuseUnserved(fields, log);
}

absl::StatusOr<ParsedGeneration> ParseCompletion(const std::string& body, const Limits& limits) {
  absl::StatusOr<json::value> value = ParseBody(body, limits);
  if (!value.ok()) return value.status();
  ParsedGeneration parsed;
  ReadLog log;
  GenerationRequest& r = parsed.request;
  Fields fields(value->get_object(), "", &log);
  ReadCommon(fields, &log, &r);
  ReadSampling(fields, &log, &r);
  if (const json::value* prompt = fields.Find("prompt")) log.Fail(ReadPrompts(*prompt, "prompt", &r.prompts));
  std::string suffix;
  fields.Read("suffix", &suffix);
  r.has_suffix = !suffix.empty();
  std::optional<int64_t> logprobs;
  fields.Read("logprobs", &logprobs);
  if (logprobs.has_value()) {
    // Core writes "none" as -1; a client that sends a negative number must hear that it is wrong.
    if (*logprobs < 0)
      log.Fail(FieldError("logprobs", absl::StrCat("must not be negative, got ", *logprobs)));
    r.logprobs = *logprobs;
  }
  fields.ListIgnored();
  if (!log.status.ok()) return log.status;
  parsed.known = fields.TakeKnown();
  parsed.ignored = std::move(log.ignored);
  return parsed;
}

absl::Status ReadKserveParameters(const json::object& object, ParsedGeneration* out) {
  ReadLog log;
  GenerationRequest& r = out->request;
  Fields parameters(object, "parameters", &log);
  ReadSampling(parameters, &log, &r);
  RefuseUnserved(parameters, &log);
  if (parameters.Find("prompt_logprobs") != nullptr) log.Fail(Unserved(parameters.Path("prompt_logprobs")));
  parameters.Read("details", &out->details);
  std::optional<int64_t> logprobs;
  parameters.Read("logprobs", &logprobs);
  if (logprobs.value_or(0) < 0)
    log.Fail(FieldError("logprobs", absl::StrCat("must not be negative, got ", *logprobs)));
  r.logprobs = logprobs.value_or(-1);
  // Named as the client wrote it: ValidateRequest knows only OpenAI's names.
  if (r.n != 1) log.Fail(FieldError("parameters.n", "only one text is given back", "unsupported_field"));
  parameters.ListIgnored();
  out->known = parameters.TakeKnown();
  out->ignored = std::move(log.ignored);
  return log.status;
}

absl::StatusOr<ParsedGeneration> ParseKserveGenerate(const std::string& body, const Limits& limits,
                                                     bool stream) {
  absl::StatusOr<json::value> value = ParseBody(body, limits);
  if (!value.ok()) return value.status();
  ParsedGeneration parsed;
  ReadLog log;
  GenerationRequest& r = parsed.request;
  r.stream = stream;
  r.prompt_name = "text_input";
  Fields fields(value->get_object(), "", &log);
  fields.Read("id", &parsed.kserve_id);
  std::string text;
  if (fields.Find("text_input") == nullptr) {
    log.Fail(FieldError("text_input", "is needed", "missing_field"));
  }
  fields.Read("text_input", &text);
  r.prompts.emplace_back(std::move(text));
  if (const json::value* value = fields.Find("parameters")) {
    if (value->is_object()) {
      if (absl::Status read = ReadKserveParameters(value->get_object(), &parsed); !read.ok()) log.Fail(read);
    } else {
      log.Fail(TypeError("parameters", "an object", *value));
    }
  }
  fields.ListIgnored();
  if (!log.status.ok()) return log.status;
  parsed.ignored.insert(parsed.ignored.end(), log.ignored.begin(), log.ignored.end());
  return parsed;
}

absl::StatusOr<ParsedTokenize> ParseTokenize(const std::string& body, const Limits& limits) {
  absl::StatusOr<json::value> value = ParseBody(body, limits);
  if (!value.ok()) return value.status();
  ParsedTokenize parsed;
  ReadLog log;
  Fields fields(value->get_object(), "", &log);
  fields.Read("model", &parsed.model);
  const bool has_prompt = fields.Find("prompt") != nullptr;
  parsed.is_chat = fields.Find("messages") != nullptr;
  if (has_prompt == parsed.is_chat)
    log.Fail(FieldError("prompt", "exactly one of prompt and messages is needed", "missing_field"));
  fields.Read("prompt", &parsed.prompt);
  if (parsed.is_chat) ReadChat(fields, limits, &log, &parsed.chat);
  fields.Read("add_special_tokens", &parsed.add_special_tokens);
  fields.ListIgnored();
  if (!log.status.ok()) return log.status;
  parsed.known = fields.TakeKnown();
  parsed.ignored = std::move(log.ignored);
  return parsed;
}

absl::StatusOr<ParsedDetokenize> ParseDetokenize(const std::string& body, const Limits& limits) {
  absl::StatusOr<json::value> value = ParseBody(body, limits);
  if (!value.ok()) return value.status();
  ParsedDetokenize parsed;
  ReadLog log;
  Fields fields(value->get_object(), "", &log);
  fields.Read("model", &parsed.model);
  if (fields.Find("tokens") == nullptr) log.Fail(FieldError("tokens", "is needed", "missing_field"));
  fields.Read("tokens", &parsed.tokens);
  fields.Read("skip_special_tokens", &parsed.skip_special_tokens);
  fields.ListIgnored();
  if (!log.status.ok()) return log.status;
  parsed.known = fields.TakeKnown();
  parsed.ignored = std::move(log.ignored);
  return parsed;
}

}  // namespace sessa
