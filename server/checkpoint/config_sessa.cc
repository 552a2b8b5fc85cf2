// The seed paper's own models: Sessa, and its block with attention or a Mamba-2 as the mixer.
#include <string>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_families.h"

namespace sessa {
namespace {

SessaConfig::Mixer ReadMixerName(JsonFields* json) {
  const std::string name = json->String("mixer", "feedback");
  if (name == "attention") return SessaConfig::Mixer::kAttention;
  if (name == "mamba2") return SessaConfig::Mixer::kMamba2;
  if (name != "feedback")
    json->Fail("mixer", absl::StrCat("must be feedback, attention or mamba2, not '", name, "'"));
  return SessaConfig::Mixer::kFeedback;
}

void ReadAttention(JsonFields* json, ModelConfig* config) {
  json->Require("num_attention_heads");
  json->Read("num_attention_heads", &config->num_heads);
  config->num_kv_heads = config->num_heads;
  json->Read("num_key_value_heads", &config->num_kv_heads);
  json->Read("head_dim", &config->attention_head_dim);
  json->Read("use_forward_rope", &config->use_forward_rope);
  json->Read("rope_theta", &config->rope_theta);
}

void ReadMamba(JsonFields* json, Mamba2Mixer* mixer) {
  json->Require("mamba");
  const boost::json::value* value = json->Find("mamba");
  if (value == nullptr) return;
  JsonFields mamba(*value, "mamba");
  for (const char* key : {"num_heads", "head_dim", "state_size"}) mamba.Require(key);
  ReadMamba2Mixer(&mamba, mixer);
  mamba.Read("norm_eps", &mixer->norm_eps);
  json->Update(mamba.status());
}

}  // namespace

void ReadSessaConfig(JsonFields* json, ModelConfig* config) {
  SessaConfig& sessa = config->family.emplace<SessaConfig>();
  for (const char* key : {"rope_scaling", "rope_parameters", "quantization_config"}) json->Refuse(key);
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers"}) json->Require(key);
  json->Read("vocab_size", &config->vocab_size);
  json->Read("hidden_size", &config->hidden_size);
  json->Read("num_hidden_layers", &config->num_layers);
  json->Read("layer_norm_eps", &config->norm_eps);
  json->Read("tie_word_embeddings", &config->tie_word_embeddings);
  json->Read("max_position_embeddings", &config->max_position_embeddings);
  json->Read("bos_token_id", &config->bos_token_id);
  ReadEndTokens(json, {}, config);
  sessa.mixer = ReadMixerName(json);
  if (sessa.mixer == SessaConfig::Mixer::kMamba2) {
    ReadMamba(json, &sessa.mamba);
  } else {
    ReadAttention(json, config);
  }
  if (sessa.mixer == SessaConfig::Mixer::kFeedback) json->Read("gamma_max", &sessa.gamma_max);
}

}  // namespace sessa
