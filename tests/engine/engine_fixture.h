// An engine over the real model and kernels, with a small random model.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "gtest/gtest.h"
#include "tests/engine/collecting_sink.h"
#include "tests/reference/random_model.h"

namespace sessa {

inline ModelConfig SmallConfig() {
  ModelConfig c;
  c.vocab_size = 40;
  c.hidden_size = 48;
  c.num_layers = 2;
  c.num_heads = 8;
  c.num_kv_heads = 8;
  c.max_position_embeddings = 512;
  c.eos_token_ids = {39};
  return c;
}

// One of each family, small: what every family has to do alike is tested with all of these.
inline std::vector<std::pair<std::string, ModelConfig>> SmallConfigs() {
  Mamba2Mixer mamba;
  mamba.num_heads = 6, mamba.head_dim = 12, mamba.state_size = 10, mamba.num_groups = 2;
  SessaConfig attention, gated_mamba;
  attention.mixer = SessaConfig::Mixer::kAttention;
  gated_mamba.mixer = SessaConfig::Mixer::kMamba2;
  gated_mamba.mamba = mamba;
  LlamaConfig llama;
  llama.intermediate_size = 70;
  llama.qkv_bias = llama.qk_norm = true;
  llama.windows = {0, 37};
  std::vector<std::pair<std::string, ModelConfig>> configs = {{"sessa", SmallConfig()}};
  const auto add = [&](const char* name, auto family, ModelConfig c = SmallConfig()) {
    c.family = std::move(family);
    configs.emplace_back(name, std::move(c));
  };
  ModelConfig grouped = SmallConfig(), headless = SmallConfig();
  grouped.num_kv_heads = 2, grouped.attention_head_dim = 10, grouped.tie_word_embeddings = false;
  headless.num_heads = headless.num_kv_heads = 0;
  add("attention", attention);
  add("llama", llama, grouped);
  add("gated_mamba", gated_mamba, headless);
  add("mamba2", Mamba2Config{mamba}, headless);
  return configs;
}

inline EngineOptions SmallOptions() {
  EngineOptions o;
  o.weight_dtype = DType::kF32;
  o.state_dtype = DType::kF32;
  o.page_size = 16;
  o.state_cache_bytes = 16 << 20;
  o.num_threads = 1;
  o.max_step_tokens = 128;
  return o;
}

inline std::vector<int32_t> RandomPrompt(int n, int seed = 1) {
  std::mt19937 rng(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % 39);
  return tokens;
}

inline Request MakeRequest(std::vector<int32_t> prompt, int max_tokens, float temperature = 1,
                           uint64_t seed = 5, int n = 1) {
  Request r;
  r.prompt = std::move(prompt);
  r.sampling.max_tokens = max_tokens;
  r.sampling.temperature = temperature;
  r.sampling.seed = seed;
  r.sampling.ignore_eos = true;
  r.sampling.num_logprobs = SmallConfig().vocab_size;
  r.n = n;
  return r;
}

class EngineFixture : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> Make(const EngineOptions& options) {
    auto engine = Engine::Create(options, config_, *weights_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }
  static std::shared_ptr<CollectingSink> Submit(Engine* engine, Request request, RequestId* id = nullptr) {
    auto sink = std::make_shared<CollectingSink>(request.n);
    request.sink = sink;
    auto accepted = engine->Submit(std::move(request));
    EXPECT_TRUE(accepted.ok()) << accepted.status();
    if (!accepted.ok()) {  // nothing will come: who waits must not wait for ever
      RequestEnd end;
      end.status = accepted.status();
      sink->OnEnd(end);
    } else if (id != nullptr) {
      *id = *accepted;
    }
    return sink;
  }
  static absl::Status SubmitError(Engine* engine, Request request) {
    auto sink = std::make_shared<CollectingSink>(std::max(1, request.n));
    request.sink = sink;
    const absl::Status status = engine->Submit(std::move(request)).status();
    EXPECT_FALSE(sink->ended());
    return status;
  }
  ModelConfig config_ = SmallConfig();
  std::unique_ptr<WeightSource> weights_ = RandomModel(config_, 3);
};

}  // namespace sessa
