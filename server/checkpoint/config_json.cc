// Which family a config.json is of, and what keeps any of them from being served. Keys that nobody here asks
// for (dtype, use_cache, initializer_range) are for other programs.
#include "server/checkpoint/config_json.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_families.h"
#include "server/file/json_file.h"

namespace sessa {
namespace {

struct Family {
  absl::string_view model_type;
  void (*read)(JsonFields* json, ModelConfig* config);
};
constexpr Family kFamilies[] = {
    {"sessa", ReadSessaConfig}, {"llama", ReadLlamaConfig}, {"mistral", ReadLlamaConfig},
    {"qwen2", ReadLlamaConfig}, {"qwen3", ReadLlamaConfig}, {"mamba2", ReadMamba2Config},
};

// Python writes floats that JSON has not as bare words; transformers 5 as {"__float__": "Infinity"}. The
// first are made the second, so that every reader knows one form.
std::string TagFloats(absl::string_view text) {
  std::string out;
  bool quoted = false;
  while (!text.empty()) {
    absl::string_view token = text.substr(0, quoted && text[0] == '\\' ? 2 : 1);
    if (token == "\"") quoted = !quoted;
    bool tagged = false;
    for (absl::string_view word : {"Infinity", "-Infinity", "NaN"}) {
      if (quoted || !absl::StartsWith(text, word)) continue;
      token = word;
      tagged = true;
    }
    absl::StrAppend(&out, tagged ? R"({"__float__": ")" : "", token, tagged ? R"("})" : "");
    text.remove_prefix(token.size());
  }
  return out;
}

}  // namespace

void RefuseOtherModels(JsonFields* json) {
  for (const char* key : {"quantization_config", "quantization", "compression_config", "per_layer_config",
                          "is_encoder_decoder", "add_cross_attention"})
    json->Refuse(key);
  if (!json->Bool("is_causal", true)) json->Fail("is_causal", "must be true: only decoders are served");
  if (json->Find("architectures") == nullptr) return;
  const boost::json::array* names = json->Array("architectures");
  if (names == nullptr) return;
  for (const boost::json::value& name : *names) {
    if (!name.is_string() || !absl::EndsWith(std::string(name.get_string()), "ForCausalLM"))
      json->Fail("architectures", "must name a ...ForCausalLM: a model with another head is not served");
  }
}

void RequireSilu(JsonFields* json) {
  const std::string name = json->String("hidden_act", "silu");
  if (name != "silu" && name != "swish")
    json->Fail("hidden_act", absl::StrCat("must be silu, not '", name, "'"));
}

void ReadEndTokens(JsonFields* json, std::vector<int32_t> fallback, ModelConfig* config) {
  if (!json->Has("eos_token_id")) config->eos_token_ids = std::move(fallback);
  json->ReadIds("eos_token_id", &config->eos_token_ids);
}

absl::StatusOr<ModelConfig> ParseConfigJson(absl::string_view text) {
  auto root = ParseJsonText(TagFloats(text), "");
  if (!root.ok()) return root.status();
  JsonFields json(*root, "");
  ModelConfig config;
  config.model_type = json.String("model_type", "");
  const auto* family =
      absl::c_find_if(kFamilies, [&](const Family& f) { return f.model_type == config.model_type; });
  if (family == std::end(kFamilies)) {
    json.Fail("model_type", absl::StrCat("must be sessa, llama, mistral, qwen2, qwen3 or mamba2, not '",
                                         config.model_type, "'"));
    return json.status();
  }
  family->read(&json, &config);
  absl::Status status = json.status();
  status.Update(config.Validate());
  if (!status.ok()) return status;
  return config;
}

}  // namespace sessa
