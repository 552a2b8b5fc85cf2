// Rotary positions in both dialects of config.json.
#include <string>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_families.h"

namespace sessa {
namespace {

using Type = RopeScaling::Type;

Type ReadType(JsonFields* rope) {
  const std::string name = rope->String("rope_type", rope->String("type", "default"));
  if (name == "default") return Type::kNone;
  if (name == "linear") return Type::kLinear;
  if (name == "llama3") return Type::kLlama3;
  if (name == "yarn") return Type::kYarn;
  const bool by_length = name == "dynamic" || name == "longrope" || name == "su";
  rope->Fail(rope->Find("rope_type") != nullptr ? "rope_type" : "type",
             absl::StrCat("'", name, "' ",
                          by_length ? "changes the angles of earlier tokens as a text grows: not supported"
                                    : "is not known: must be default, linear, llama3 or yarn"));
  return Type::kNone;
}

void RequireWholeHead(JsonFields* json) {
  std::optional<double> factor;
  json->Read("partial_rotary_factor", &factor);
  if (factor.value_or(1) != 1)
    json->Fail("partial_rotary_factor", "must be 1: rotary positions in a part of a head are not supported");
}

void ReadNumber(JsonFields* rope, const char* key, double* out) {
  std::optional<double> value;
  rope->Read(key, &value);
  *out = value.value_or(*out);
}

void ReadScaling(JsonFields* rope, const ModelConfig& config, RopeScaling* scaling) {
  rope->Require("factor");
  ReadNumber(rope, "factor", &scaling->factor);
  if (scaling->type == Type::kLinear) return;
  scaling->original_max_position_embeddings = config.max_position_embeddings;
  rope->Read("original_max_position_embeddings", &scaling->original_max_position_embeddings);
  if (scaling->type == Type::kLlama3) {
    rope->Require("low_freq_factor");
    ReadNumber(rope, "low_freq_factor", &scaling->low_freq_factor);
    rope->Require("high_freq_factor");
    ReadNumber(rope, "high_freq_factor", &scaling->high_freq_factor);
    return;
  }
  ReadNumber(rope, "beta_fast", &scaling->beta_fast);
  ReadNumber(rope, "beta_slow", &scaling->beta_slow);
  rope->Read("attention_factor", &scaling->attention_factor);
  rope->Read("mscale", &scaling->mscale);
  rope->Read("mscale_all_dim", &scaling->mscale_all_dim);
  rope->Read("truncate", &scaling->truncate);
}

}  // namespace

void ReadRope(JsonFields* json, ModelConfig* config) {
  RequireWholeHead(json);
  json->Read("rope_theta", &config->rope_theta);
  // Where both are there, an old key that holds something is what counts.
  const boost::json::value* old = json->Find("rope_scaling");
  const bool is_old = old != nullptr && !(old->is_object() && old->get_object().empty());
  const char* key = is_old ? "rope_scaling" : "rope_parameters";
  const boost::json::value* value = json->Find(key);
  if (value == nullptr) return;
  JsonFields rope(*value, key);
  if (const boost::json::object* fields = value->if_object()) {
    for (const auto& field : *fields) {
      if (field.value().is_object())
        rope.Fail(std::string(field.key()), "is an object: rotary positions by layer type are not supported");
    }
  }
  RequireWholeHead(&rope);
  rope.Read("rope_theta", &config->rope_theta);
  config->rope_scaling.type = ReadType(&rope);
  if (config->rope_scaling.type != Type::kNone) ReadScaling(&rope, *config, &config->rope_scaling);
  json->Update(rope.status());
  // transformers lets one beside the object take precedence.
  if (config->rope_scaling.type != Type::kNone && config->rope_scaling.type != Type::kLinear)
    json->Read("original_max_position_embeddings", &config->rope_scaling.original_max_position_embeddings);
}

}  // namespace sessa
