// See status_json.h.
#include "server/rest/status_json.h"

#include <cstddef>

#include "server/core/json_writer.h"
#include "server/tokenizer/chat_template.h"

namespace sessa {

// Made by sessa_embed (CMakeLists.txt).
extern const char* const rest_openapi_json;
extern const size_t rest_openapi_json_size;

namespace {

// As requests spell it; what is not there has the API's default.
void WriteDefaults(const SamplingDefaults& defaults, JsonWriter* json) {
  const auto number = [json](const char* key, const std::optional<double>& value) {
    if (value.has_value()) json->Key(key).Number(*value);
  };
  const auto integer = [json](const char* key, const std::optional<int64_t>& value) {
    if (value.has_value()) json->Key(key).Int(*value);
  };
  json->Key("default_sampling_params").BeginObject();
  number("temperature", defaults.temperature);
  number("top_p", defaults.top_p);
  integer("top_k", defaults.top_k);
  number("min_p", defaults.min_p);
  number("repetition_penalty", defaults.repetition_penalty);
  integer("max_tokens", defaults.max_tokens);
  json->EndObject();
}

void WriteModel(const ServedModel& model, JsonWriter* json) {
  const ModelConfig& config = model.engine->config();
  json->BeginObject().Key("id").String(model.name).Key("object").String("model");
  json->Key("created").Int(absl::ToUnixSeconds(model.created)).Key("owned_by").String("sessa");
  json->Key("max_model_len").Int(model.engine->options().max_model_len);
  json->Key("vocab_size").Int(config.vocab_size).Key("hidden_size").Int(config.hidden_size);
  json->Key("num_layers").Int(config.num_layers);
  json->Key("has_tokenizer").Bool(model.tokenizer != nullptr);
  const absl::Status chat = model.chat_template != nullptr ? model.chat_template->status() : absl::OkStatus();
  json->Key("has_chat_template").Bool(model.chat_template != nullptr && chat.ok());
  if (!chat.ok()) json->Key("chat_template_error").String(chat.message());
  WriteDefaults(model.defaults, json);
  json->EndObject();
}

// As the key file spells it; null: no limit of its own.
void WriteTenant(const std::string& name, const TenantLimits& limits, JsonWriter* json) {
  const auto limit = [json](const char* key, double value) {
    json->Key(key);
    value > 0 ? json->Number(value) : json->Null();
  };
  json->Key("tenant").BeginObject().Key("name").String(name).Key("weight").Int(limits.weight);
  limit("rate", limits.rate);
  limit("burst", limits.burst);
  limit("tokens_per_minute", static_cast<double>(limits.tokens_per_minute));
  limit("max_requests", limits.max_requests);
  json->Key("min_priority").Int(limits.min_priority).Key("max_priority").Int(limits.max_priority);
  json->EndObject();
}

}  // namespace

std::string ModelJson(const ServedModel& model) {
  std::string out;
  JsonWriter json(&out);
  WriteModel(model, &json);
  return out;
}

std::string ModelListJson(const ServedModel& model) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("object").String("list").Key("data").BeginArray();
  WriteModel(model, &json);
  json.EndArray().EndObject();
  return out;
}

std::string LimitsJson(const Service& service, const std::string& tenant) {
  const Limits& limits = service.limits();
  std::string out;
  JsonWriter json(&out);
  json.BeginObject();
  json.Key("max_body_bytes").Int(limits.max_body_bytes).Key("max_header_bytes").Int(limits.max_header_bytes);
  json.Key("max_answer_bytes").Int(limits.max_answer_bytes);
  json.Key("max_buffered_bytes").Int(limits.max_buffered_bytes);
  json.Key("max_prompts").Int(limits.max_prompts).Key("max_messages").Int(limits.max_messages);
  json.Key("max_n").Int(limits.max_n).Key("max_total_tokens").Int(limits.max_total_tokens);
  json.Key("max_stop").Int(limits.max_stop).Key("max_stop_bytes").Int(limits.max_stop_bytes);
  json.Key("max_stop_token_ids")
      .Int(limits.max_stop_token_ids)
      .Key("max_logit_bias")
      .Int(limits.max_logit_bias);
  json.Key("max_allowed_token_ids")
      .Int(limits.max_allowed_token_ids)
      .Key("max_logprobs")
      .Int(limits.max_logprobs);
  json.Key("max_similarity_texts")
      .Int(limits.max_similarity_texts)
      .Key("max_similarity_samples")
      .Int(limits.max_similarity_samples)
      .Key("max_similarity_scores")
      .Int(limits.max_similarity_scores);
  json.Key("max_json_depth")
      .Int(limits.max_json_depth)
      .Key("max_queued_events")
      .Int(limits.max_queued_events);
  json.Key("max_requests_per_tenant").Int(limits.max_requests_per_tenant);
  json.Key("default_timeout_seconds").Number(absl::ToDoubleSeconds(limits.default_timeout));
  json.Key("max_timeout_seconds").Number(absl::ToDoubleSeconds(limits.max_timeout));
  if (auto model = service.FindModel(""); model.ok()) {
    const EngineOptions& engine = (*model)->engine->options();
    json.Key("max_model_len").Int(engine.max_model_len).Key("max_num_seqs").Int(engine.max_num_seqs);
    json.Key("max_queued_requests").Int(engine.max_queued_requests);
    json.Key("max_queued_tokens").Int(engine.max_queued_tokens);
  }
  if (!tenant.empty()) WriteTenant(tenant, service.tenants().Limits(tenant), &json);
  json.EndObject();
  return out;
}

std::string LoadJson(const Service& service) {
  EngineStats stats;
  if (auto model = service.FindModel(""); model.ok()) stats = (*model)->engine->Stats();
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("server_load").Int(stats.num_running + stats.num_waiting);  // vLLM's name
  json.Key("num_running").Int(stats.num_running).Key("num_waiting").Int(stats.num_waiting);
  json.Key("waiting_tokens").Int(stats.waiting_tokens).Key("state_cache_usage");
  json.Number(stats.state_cache_usage());
  json.Key("ready").Bool(service.Ready()).Key("draining").Bool(service.Ending()).EndObject();
  return out;
}

std::string RouterLoadJson(const Service& service) {
  EngineStats stats;
  if (auto model = service.FindModel(""); model.ok()) stats = (*model)->engine->Stats();
  std::string out;
  JsonWriter json(&out);
  json.BeginArray().BeginObject().Key("dp_rank").Int(0);
  json.Key("num_reqs").Int(stats.num_running + stats.num_waiting);
  json.Key("num_waiting_reqs").Int(stats.num_waiting);
  // Pages are whole: up to a page too many for each sequence. Models without pages hold none.
  json.Key("num_tokens").Int(int64_t{stats.num_used_pages} * stats.page_size + stats.waiting_tokens);
  json.EndObject().EndArray();
  return out;
}

std::string RouterServerJson(const Service& service, const ServedModel& model) {
  const EngineOptions& options = model.engine->options();
  const EngineStats stats = model.engine->Stats();
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("served_model_name").String(model.name);
  json.Key("version").String(service.options().version).Key("dp_size").Int(1);
  json.Key("context_length").Int(options.max_model_len);
  json.Key("max_total_tokens").Int(int64_t{stats.num_pages} * stats.page_size);
  json.Key("max_running_requests").Int(options.max_num_seqs).EndObject();
  return out;
}

std::string RouterModelJson(const ServedModel& model) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("served_model_name").String(model.name).Key("is_generation").Bool(true);
  json.Key("model_type").String(model.engine->config().model_type).EndObject();
  return out;
}

std::string OpenApiJson() { return std::string(rest_openapi_json, rest_openapi_json_size); }

std::string VersionJson(const Service& service) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("version").String(service.options().version).EndObject();
  return out;
}

}  // namespace sessa
