// Reads the keys that ModelConfig has; others (torch_dtype, architectures) are for other programs.
#include "server/checkpoint/config_json.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/file/json_fields.h"
#include "server/file/json_file.h"

namespace sessa {

absl::StatusOr<ModelConfig> ParseConfigJson(absl::string_view text) {
  auto root = ParseJsonText({text.data(), text.size()}, "");
  if (!root.ok()) return root.status();
  JsonFields read(*root, "");
  if (read.String("model_type", "") != "sessa") read.Fail("model_type", "must be \"sessa\"");
  if (!read.status().ok()) return read.status();
  ModelConfig config;
  read.Require("vocab_size");
  read.Read("vocab_size", &config.vocab_size);
  read.Require("hidden_size");
  read.Read("hidden_size", &config.hidden_size);
  read.Require("num_hidden_layers");
  read.Read("num_hidden_layers", &config.num_layers);
  read.Require("num_attention_heads");
  read.Read("num_attention_heads", &config.num_heads);
  config.num_kv_heads = config.num_heads;
  read.Read("num_key_value_heads", &config.num_kv_heads);
  read.Read("layer_norm_eps", &config.norm_eps);
  read.Read("use_forward_rope", &config.use_forward_rope);
  read.Read("rope_theta", &config.rope_theta);
  read.Read("gamma_max", &std::get<SessaConfig>(config.family).gamma_max);
  read.Read("tie_word_embeddings", &config.tie_word_embeddings);
  read.Read("max_position_embeddings", &config.max_position_embeddings);
  read.Read("bos_token_id", &config.bos_token_id);
  read.ReadIds("eos_token_id", &config.eos_token_ids);
  absl::Status status = read.status();
  status.Update(config.Validate());
  if (!status.ok()) return status;
  return config;
}

}  // namespace sessa
