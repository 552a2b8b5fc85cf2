// See similarity_call.h.
#include "server/rest/similarity_call.h"

#include <cmath>

#include "server/core/json_writer.h"

namespace sessa {
namespace {

// A continuation that the model rules out after the other text makes a divergence infinite: null in JSON.
void WriteNumber(double value, JsonWriter* json) {
  std::isfinite(value) ? json->Number(value) : json->Null();
}

// One row for each text, one number in it for each text.
template <typename Value>
void WriteMatrix(const char* name, const SimilarityResult& result, Value value, JsonWriter* json) {
  json->Key(name).BeginArray();
  for (int i = 0; i < result.num_texts; ++i) {
    json->BeginArray();
    for (int j = 0; j < result.num_texts; ++j) WriteNumber(value(result.at(i, j)), json);
    json->EndArray();
  }
  json->EndArray();
}

std::string ResultJson(const SimilarityResult& result, const std::string& id, int64_t created) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("id").String(id).Key("object").String("similarity");
  json.Key("created").Int(created).Key("model").String(result.model);
  json.Key("seed").Int(static_cast<int64_t>(result.seed));
  using D = const Divergences&;
  WriteMatrix(
      "distance", result, [](D d) { return d.jeffreys.value; }, &json);
  WriteMatrix(
      "distance_standard_error", result, [](D d) { return d.jeffreys.standard_error; }, &json);
  WriteMatrix(
      "distance_per_token", result, [](D d) { return d.jeffreys.per_token; }, &json);
  WriteMatrix(
      "distance_per_token_standard_error", result, [](D d) { return d.jeffreys.standard_error_per_token; },
      &json);
  WriteMatrix(
      "kl", result, [](D d) { return d.p_to_q.value; }, &json);
  WriteMatrix(
      "kl_standard_error", result, [](D d) { return d.p_to_q.standard_error; }, &json);
  WriteMatrix(
      "kl_per_token", result, [](D d) { return d.p_to_q.per_token; }, &json);
  WriteMatrix(
      "kl_per_token_standard_error", result, [](D d) { return d.p_to_q.standard_error_per_token; }, &json);
  json.Key("usage").BeginObject().Key("prompt_tokens").Int(result.usage.prompt_tokens);
  json.Key("completion_tokens").Int(result.usage.completion_tokens);
  json.Key("total_tokens").Int(result.usage.prompt_tokens + result.usage.completion_tokens);
  json.Key("prompt_tokens_details").BeginObject().Key("cached_tokens").Int(result.usage.cached_tokens);
  json.EndObject().EndObject().EndObject();
  return out;
}

}  // namespace

Reply SimilarityCall::MakeReply() {
  const absl::StatusOr<SimilarityResult>& result = similarity_->result();
  Reply reply = result.ok() ? JsonReply(ResultJson(*result, id_, created_)) : ErrorReply(result.status());
  for (auto& header : headers_) reply.headers.push_back(std::move(header));
  return reply;
}

}  // namespace sessa
