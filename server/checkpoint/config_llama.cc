// llama, mistral, qwen2 and qwen3: one decoder, whose model_type decides about defaults, biases and windows.
#include <algorithm>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_families.h"

namespace sessa {
namespace {

// What a config.json of this model_type means by what it leaves out.
struct Defaults {
  absl::string_view model_type;
  int vocab_size, intermediate_size;
  int num_kv_heads;  // 0: as many as heads
  int head_dim;      // 0: hidden_size / num_attention_heads
  int max_position_embeddings;
  int bos_token_id, eos_token_id;  // -1: none
};
constexpr Defaults kDefaults[] = {
    {"llama", 32000, 11008, 0, 0, 2048, 1, 2},
    {"mistral", 32000, 14336, 8, 0, 131072, 1, 2},
    {"qwen2", 151936, 22016, 32, 0, 32768, -1, -1},
    {"qwen3", 151936, 22016, 32, 128, 32768, -1, -1},
};
constexpr int kDefaultWindow = 4096;

// 0: none. Absent and null differ here.
int ReadWindow(JsonFields* json) {
  if (json->Has("sliding_window") && json->Find("sliding_window") == nullptr) return 0;
  int window = kDefaultWindow;
  json->Read("sliding_window", &window);
  if (window < 1) json->Fail("sliding_window", "must be at least 1, or null");
  return window;
}

// qwen: the layers that layer_types calls so, else those from max_window_layers on.
void ReadQwenWindows(JsonFields* json, int num_layers, std::vector<int>* windows) {
  const int window = json->Bool("use_sliding_window", false) ? ReadWindow(json) : 0;
  windows->assign(std::clamp(num_layers, 0, 1024), 0);  // Validate has the true bound
  if (json->Find("layer_types") == nullptr) {
    const int first = json->Int("max_window_layers", 28);
    for (int i = first; i < static_cast<int>(windows->size()); ++i) (*windows)[i] = window;
    return;
  }
  const boost::json::array* types = json->Array("layer_types");
  if (types == nullptr) return;
  if (types->size() != windows->size())
    return json->Fail("layer_types", absl::StrCat("must have num_hidden_layers, ", num_layers, ", values"));
  for (size_t i = 0; i < windows->size(); ++i) {
    if ((*types)[i] == "sliding_attention") {
      if (window == 0) {
        return json->Fail("layer_types",
                          "has sliding_attention, but use_sliding_window and sliding_window name no window");
      }
      (*windows)[i] = window;
    } else if ((*types)[i] != "full_attention" && (*types)[i] != "attention") {
      return json->Fail("layer_types", "must be full_attention or sliding_attention");
    }
  }
}

void ReadWindows(JsonFields* json, const ModelConfig& config, std::vector<int>* windows) {
  if (config.model_type == "qwen2" || config.model_type == "qwen3") {
    ReadQwenWindows(json, config.num_layers, windows);
  } else {
    // Other programs read these where transformers does not: what is meant is not known.
    json->Refuse("layer_types");
    if (config.model_type == "llama") {
      json->Refuse("sliding_window");
    } else {
      windows->assign(std::clamp(config.num_layers, 0, 1024), ReadWindow(json));
    }
  }
  if (absl::c_all_of(*windows, [](int w) { return w == 0; })) windows->clear();
}

void ReadBiases(JsonFields* json, const std::string& model_type, LlamaConfig* llama) {
  if (model_type == "llama" || model_type == "qwen3") {
    llama->qkv_bias = llama->out_bias = json->Bool("attention_bias", false);
  } else {
    llama->qkv_bias = model_type == "qwen2";
    if (model_type == "mistral") json->Refuse("attention_bias");
  }
  if (model_type == "llama") {
    llama->mlp_bias = json->Bool("mlp_bias", false);
  } else {
    json->Refuse("mlp_bias");
  }
}

}  // namespace

void ReadLlamaConfig(JsonFields* json, ModelConfig* config) {
  const Defaults& of =
      *absl::c_find_if(kDefaults, [&](const Defaults& d) { return d.model_type == config->model_type; });
  LlamaConfig& llama = config->family.emplace<LlamaConfig>();
  RefuseOtherModels(json);
  RequireSilu(json);
  config->vocab_size = json->Int("vocab_size", of.vocab_size);
  config->hidden_size = json->Int("hidden_size", 4096);
  config->num_layers = json->Int("num_hidden_layers", 32);
  config->num_heads = json->Int("num_attention_heads", 32);
  const bool as_heads = of.num_kv_heads == 0 || json->Has("num_key_value_heads");  // null
  config->num_kv_heads = json->Int("num_key_value_heads", as_heads ? config->num_heads : of.num_kv_heads);
  config->attention_head_dim = json->Int("head_dim", of.head_dim);
  config->norm_eps = 1e-6f;
  json->Read("rms_norm_eps", &config->norm_eps);
  config->tie_word_embeddings = json->Bool("tie_word_embeddings", false);
  config->max_position_embeddings = json->Int("max_position_embeddings", of.max_position_embeddings);
  if (!json->Has("bos_token_id")) config->bos_token_id = of.bos_token_id;
  json->Read("bos_token_id", &config->bos_token_id);
  ReadEndTokens(json, of.eos_token_id < 0 ? std::vector<int32_t>() : std::vector<int32_t>{of.eos_token_id},
                config);
  ReadRope(json, config);
  llama.intermediate_size = json->Int("intermediate_size", of.intermediate_size);
  llama.qk_norm = config->model_type == "qwen3";
  ReadBiases(json, config->model_type, &llama);
  ReadWindows(json, *config, &llama.windows);
}

}  // namespace sessa
