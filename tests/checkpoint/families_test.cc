// config.json of each family: what is refused, with the key's name, and the edges of what is not. What the
// keys mean is compared with their own package in transformers_test.py.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_json.h"

namespace sessa {
namespace {

std::string Json(const std::string& model_type, const std::string& more) {
  const std::string sizes =
      model_type == "mamba2" ? R"("num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 16)"
      : model_type == "sessa"
          ? R"("num_attention_heads": 4, "num_key_value_heads": 2)"
          : R"("num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 144)";
  return absl::StrCat(R"({"model_type": ")", model_type,
                      R"(", "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 3, )", sizes,
                      more.empty() ? "" : ", ", more, "}");
}

ModelConfig Good(const std::string& model_type, const std::string& more) {
  const auto config = ParseConfigJson(Json(model_type, more));
  EXPECT_TRUE(config.ok()) << model_type << " " << more << ": " << config.status();
  return config.ok() ? *config : ModelConfig();
}

void ExpectError(const std::string& model_type, const std::string& more, const std::string& expected) {
  const auto config = ParseConfigJson(Json(model_type, more));
  ASSERT_FALSE(config.ok()) << model_type << " " << more;
  EXPECT_TRUE(absl::StrContains(config.status().message(), expected))
      << model_type << " " << more << ": " << config.status();
}

std::vector<int> Windows(const std::string& model_type, const std::string& more) {
  const ModelConfig config = Good(model_type, more);
  const auto* llama = std::get_if<LlamaConfig>(&config.family);
  return llama == nullptr ? std::vector<int>{-1} : llama->windows;
}

constexpr const char* kLlamaTypes[] = {"llama", "mistral", "qwen2", "qwen3"};

TEST(FamiliesTest, OtherModelsAreRefused) {
  for (const char* type : {"gpt2", "gemma2", "mamba", "qwen2_moe", "qwen3_next", "Llama", ""})
    ExpectError(type, "", "model_type");
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3", "mamba2"}) {
    Good(type, "");
    Good(type, R"("architectures": ["XForCausalLM"], "quantization_config": null, "dtype": "bfloat16")");
    Good(type, R"("hidden_act": "swish")");
    const std::pair<const char*, const char*> cases[] = {
        {R"("hidden_act": "gelu")", "hidden_act: must be silu, not 'gelu'"},
        {R"("hidden_act": 3)", "hidden_act"},
        {R"("quantization_config": {"quant_method": "gptq", "bits": 4})", "quantization_config"},
        {R"("quantization_config": {})", "quantization_config"},
        {R"("quantization": {"group_size": 64})", "quantization"},
        {R"("compression_config": {"format": "pack"})", "compression_config"},
        {R"("per_layer_config": {"0": {"num_key_value_heads": 1}})", "per_layer_config"},
        {R"("architectures": ["LlamaForSequenceClassification"])", "architectures"},
        {R"("architectures": ["MistralModel"])", "architectures"},
        {R"("architectures": "LlamaForCausalLM")", "architectures"},
        {R"("is_causal": false)", "is_causal"},
        {R"("is_encoder_decoder": true)", "is_encoder_decoder"},
        {R"("tie_word_embeddings": 1)", "tie_word_embeddings"},
        {R"("eos_token_id": 96)", "eos_token_id"},
        {R"("eos_token_id": [2, "x"])", "eos_token_id"},
        {R"("bos_token_id": -2)", "bos_token_id"},
    };
    for (const auto& [more, expected] : cases) ExpectError(type, more, expected);
  }
}

TEST(FamiliesTest, RotaryPositions) {
  for (const char* type : kLlamaTypes) {
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      for (const char* type_key : {"type", "rope_type"}) {
        const auto more = [&](const std::string& name, const std::string& rest) {
          return absl::StrCat("\"", key, "\": {\"", type_key, "\": \"", name, "\"", rest.empty() ? "" : ", ",
                              rest, "}");
        };
        for (const char* name : {"dynamic", "longrope", "su"}) {
          ExpectError(type, more(name, R"("factor": 2.0)"), absl::StrCat(key, ".", type_key, ": '", name));
        }
        for (const char* name : {"mrope", "ntk", "proportional", "Linear", ""})
          ExpectError(type, more(name, ""), absl::StrCat(key, ".", type_key, ": '", name, "' is not known"));
        ExpectError(type, more("linear", ""), absl::StrCat(key, ".factor: is missing"));
        ExpectError(type, more("linear", R"("factor": null)"), absl::StrCat(key, ".factor: is missing"));
        ExpectError(type, more("linear", R"("factor": 0.5)"), "factor");
        ExpectError(type, more("linear", R"("factor": "2")"), absl::StrCat(key, ".factor"));
        ExpectError(type, more("llama3", R"("factor": 2.0, "high_freq_factor": 4)"), "low_freq_factor");
        ExpectError(type, more("llama3", R"("factor": 2.0, "low_freq_factor": 4, "high_freq_factor": 4)"),
                    "high_freq_factor");
        ExpectError(type, more("yarn", R"("factor": 2.0, "beta_fast": 1, "beta_slow": 2)"), "beta_fast");
        ExpectError(type, more("default", R"("partial_rotary_factor": 0.5)"), "partial_rotary_factor");
        EXPECT_EQ(
            Good(type, more("default", R"("rope_theta": 500, "partial_rotary_factor": 1.0)")).rope_theta,
            500);
        EXPECT_EQ(Good(type, more("linear", R"("factor": 2)")).rope_scaling.type, RopeScaling::Type::kLinear);
      }
      ExpectError(type, absl::StrCat("\"", key, R"(": {"full_attention": {"rope_theta": 1e6}})"),
                  absl::StrCat(key, ".full_attention"));
      ExpectError(type, absl::StrCat("\"", key, "\": 4"), absl::StrCat(key, ": must be an object"));
    }
    ExpectError(type, R"("partial_rotary_factor": 0.25)", "partial_rotary_factor");
    ExpectError(type, R"("rope_theta": 0.5)", "rope_theta");
    ExpectError(type, R"("rope_theta": 1e39)", "rope_theta");
    ExpectError(type, R"("rope_theta": Infinity)", "rope_theta");
    EXPECT_EQ(Good(type, "").rope_theta, 10000);
  }
}

TEST(FamiliesTest, HeadsAndWindows) {
  using W = std::vector<int>;
  // What a table of every type would hide: absent and null differ.
  EXPECT_EQ(Windows("mistral", ""), W(3, 4096));
  EXPECT_EQ(Windows("mistral", R"("sliding_window": null)"), W());
  EXPECT_EQ(Windows("mistral", R"("sliding_window": 1)"), W(3, 1));
  ExpectError("mistral", R"("sliding_window": 0)", "sliding_window");
  ExpectError("mistral", R"("sliding_window": -1)", "sliding_window");
  ExpectError("mistral", R"("layer_types": ["full_attention"])", "layer_types");
  ExpectError("mistral", R"("attention_bias": true)", "attention_bias");
  ExpectError("mistral", R"("mlp_bias": true)", "mlp_bias");
  EXPECT_EQ(Windows("llama", R"("sliding_window": null)"), W());
  ExpectError("llama", R"("sliding_window": 4096)", "sliding_window");
  for (const char* type : {"qwen2", "qwen3"}) {
    EXPECT_EQ(Windows(type, R"("sliding_window": 8)"), W());
    EXPECT_EQ(Windows(type, R"("use_sliding_window": true)"), W());  // the first 28 layers have none
    EXPECT_EQ(Windows(type, R"("use_sliding_window": true, "max_window_layers": 2)"), (W{0, 0, 4096}));
    EXPECT_EQ(Windows(type, R"("use_sliding_window": true, "sliding_window": 8, "max_window_layers": 0)"),
              W(3, 8));
    const std::string types = R"("layer_types": ["sliding_attention", "full_attention", "attention"])";
    EXPECT_EQ(Windows(type, R"("use_sliding_window": true, "sliding_window": 8, )" + types), (W{8, 0, 0}));
    ExpectError(type, types, "layer_types: has sliding_attention");
    ExpectError(type, R"("use_sliding_window": true, "sliding_window": null, )" + types, "layer_types");
    ExpectError(type, R"("layer_types": ["full_attention"])", "layer_types: must have num_hidden_layers, 3");
    ExpectError(type, R"("layer_types": ["full_attention", "full_attention", "chunked_attention"])",
                "layer_types");
    ExpectError(type, R"("use_sliding_window": true, "sliding_window": 0)", "sliding_window");
  }
  const auto parse = [](const std::string& text) { return ParseConfigJson(text).status().ToString(); };
  // Eight heads of keys and values for four of queries: transformers' default fits no such model either.
  const std::string heads = R"({"model_type": "mistral", "num_attention_heads": 4, "hidden_size": 64)";
  EXPECT_TRUE(absl::StrContains(parse(heads + "}"), "num_key_value_heads is 8"));
  EXPECT_EQ(parse(heads + R"(, "num_key_value_heads": null})"), "OK");
  EXPECT_TRUE(absl::StrContains(parse(heads + R"(, "num_key_value_heads": 4, "head_dim": 15})"), "head"));
}

TEST(FamiliesTest, Mamba2) {
  for (const char* limit :
       {"[0.0, Infinity]", R"([0.0, {"__float__": "Infinity"}])", "[0, Infinity]", "null"})
    Good("mamba2", absl::StrCat("\"time_step_limit\": ", limit));
  for (const char* limit : {"[0.0, 0.1]", "[0.001, Infinity]", R"([0.0, {"__float__": "NaN"}])", "[0.0]",
                            "[0.0, NaN]", "[0.0, -Infinity]", "[0.0, \"Infinity\"]", "[Infinity, Infinity]",
                            "[-Infinity, Infinity]", "0.1", "[]", "[0, {}]"})
    ExpectError("mamba2", absl::StrCat("\"time_step_limit\": ", limit), "time_step_limit");
  ExpectError("mamba2", R"("expand": 3)",
              "expand: times hidden_size is 192, must be num_heads * head_dim, 128");
  ExpectError("mamba2", R"("rms_norm": false)", "rms_norm");
  ExpectError("mamba2", R"("conv_kernel": 1)", "conv_kernel");
  Good("mamba2",
       R"("rms_norm": true, "norm_before_gate": true, "time_step_rank": "auto", "chunk_size": 256)");
  // Words are tagged outside of strings alone.
  const ModelConfig config = Good("mamba2", R"("x\"Infinity": "NaN \\", "y": NaN, "bos_token_id": null)");
  EXPECT_EQ(config.bos_token_id, -1);
  EXPECT_EQ(config.eos_token_ids, std::vector<int32_t>{2});
  EXPECT_FALSE(ParseConfigJson(Json("mamba2", R"("x": Infinit)")).ok());
}

TEST(FamiliesTest, SessaMixers) {
  EXPECT_EQ(std::get<SessaConfig>(Good("sessa", R"("mixer": "attention")").family).mixer,
            SessaConfig::Mixer::kAttention);
  const ModelConfig config = Good("sessa", R"("mixer": "mamba2", "mamba": {"num_heads": 8, "head_dim": 16,
      "state_size": 32, "n_groups": 2, "norm_eps": 1e-3})");
  ASSERT_NE(config.mamba(), nullptr);
  EXPECT_EQ(config.mamba()->conv_size(), 128 + 2 * 2 * 32);
  EXPECT_EQ(config.mamba()->conv_kernel, 4);
  EXPECT_FLOAT_EQ(config.mamba()->norm_eps, 1e-3f);
  EXPECT_FALSE(config.has_attention());
  ExpectError("sessa", R"("mixer": "rwkv")", "mixer: must be feedback, attention or mamba2, not 'rwkv'");
  ExpectError("sessa", R"("mixer": "mamba2")", "mamba: is missing");
  ExpectError("sessa", R"("mixer": "mamba2", "mamba": [])", "mamba: must be an object");
  ExpectError("sessa", R"("mixer": "mamba2", "mamba": {"num_heads": 8})", "mamba.head_dim: is missing");
  ExpectError("sessa", R"("head_dim": 32)", "head_dim");
  ExpectError("sessa", R"("rope_scaling": {"type": "linear", "factor": 2})", "rope_scaling");
  ExpectError("sessa", R"("rope_parameters": {"rope_type": "default"})", "rope_parameters");
}

}  // namespace
}  // namespace sessa
