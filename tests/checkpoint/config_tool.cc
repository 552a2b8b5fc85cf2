// For transformers_test.py: reads paths of config.json files on stdin, one a line, and answers each with one
// line of JSON: what the server understands, or {"error": ...}.
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <iostream>
#include <string>

#include "server/checkpoint/config_json.h"
#include "server/file/read_file.h"

namespace json = boost::json;

namespace {

using sessa::LlamaConfig;
using sessa::Mamba2Mixer;
using sessa::ModelConfig;

void AddLlama(const ModelConfig& config, const LlamaConfig& c, json::object* out) {
  const sessa::RopeTable rope = sessa::MakeRopeTable(config);
  (*out)["num_heads"] = config.num_heads;
  (*out)["num_kv_heads"] = config.num_kv_heads;
  (*out)["head_dim"] = config.head_dim();
  (*out)["inv_freq"] = json::array(rope.inv_freq.begin(), rope.inv_freq.end());
  (*out)["rope_scale"] = rope.scale;
  (*out)["max_position_embeddings"] = config.max_position_embeddings;
  (*out)["intermediate_size"] = c.intermediate_size;
  (*out)["biases"] = {c.qkv_bias, c.out_bias, c.mlp_bias};
  (*out)["qk_norm"] = c.qk_norm;
  (*out)["windows"] =
      c.windows.empty() ? json::array(config.num_layers, 0) : json::array(c.windows.begin(), c.windows.end());
}

void AddMamba2(const Mamba2Mixer& m, json::object* out) {
  (*out)["sizes"] = {m.num_heads, m.head_dim, m.state_size, m.num_groups, m.conv_kernel};
  (*out)["mixer_norm_eps"] = m.norm_eps;
  (*out)["biases"] = {m.use_bias, m.use_conv_bias};
}

json::object Answer(const std::string& path) {
  const auto text = sessa::ReadFile(path);
  if (!text.ok()) return {{"error", std::string(text.status().message())}};
  const auto config = sessa::ParseConfigJson(*text);
  if (!config.ok()) return {{"error", std::string(config.status().message())}};
  json::object out;
  out["vocab_size"] = config->vocab_size;
  out["hidden_size"] = config->hidden_size;
  out["num_layers"] = config->num_layers;
  out["norm_eps"] = config->norm_eps;
  out["tie_word_embeddings"] = config->tie_word_embeddings;
  out["eos_token_ids"] = json::array(config->eos_token_ids.begin(), config->eos_token_ids.end());
  out["bos_token_id"] = config->bos_token_id;
  if (const auto* llama = std::get_if<LlamaConfig>(&config->family)) AddLlama(*config, *llama, &out);
  if (config->mamba() != nullptr) AddMamba2(*config->mamba(), &out);
  return out;
}

}  // namespace

int main() {
  for (std::string path; std::getline(std::cin, path);) std::cout << json::serialize(Answer(path)) << "\n";
  return 0;
}
