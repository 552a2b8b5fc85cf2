// Reads the keys that ModelConfig has; others (torch_dtype, architectures) are for other programs.
#include "server/checkpoint/config_json.h"

#include <boost/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_reader.h"

namespace sessa {
namespace json = boost::json;

absl::StatusOr<ModelConfig> ParseConfigJson(absl::string_view text) {
  json::error_code ec;
  const json::value root = json::parse({text.data(), text.size()}, ec);
  if (ec) return absl::InvalidArgumentError(absl::StrCat("not JSON: ", ec.message()));
  const json::object* object = root.if_object();
  if (object == nullptr) return absl::InvalidArgumentError("not a JSON object");
  const json::value* type = object->if_contains("model_type");
  if (type == nullptr || !type->is_string() || type->get_string() != "sessa") {
    return absl::InvalidArgumentError("model_type must be \"sessa\"");
  }
  ModelConfig config;
  ConfigReader read(*object);
  read.Int("vocab_size", &config.vocab_size, true);
  read.Int("hidden_size", &config.hidden_size, true);
  read.Int("num_hidden_layers", &config.num_layers, true);
  read.Int("num_attention_heads", &config.num_heads, true);
  config.num_kv_heads = config.num_heads;
  read.Int("num_key_value_heads", &config.num_kv_heads, false);
  read.Float("layer_norm_eps", &config.layer_norm_eps);
  read.Bool("use_forward_rope", &config.use_forward_rope);
  read.Float("rope_theta", &config.rope_theta);
  read.Float("gamma_max", &config.gamma_max);
  read.Bool("tie_word_embeddings", &config.tie_word_embeddings);
  read.Int("max_position_embeddings", &config.max_position_embeddings, false);
  read.Int("bos_token_id", &config.bos_token_id, false);
  read.Ids("eos_token_id", &config.eos_token_ids);
  absl::Status status = read.status();
  status.Update(config.Validate());
  if (!status.ok()) return status;
  return config;
}

}  // namespace sessa
