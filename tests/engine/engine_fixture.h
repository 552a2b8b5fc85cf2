// An engine over the real model and kernels, with a small random model.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
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
