// Whole steps of a model for sessa_bench.cc, and the bytes that they read.
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/worker.h"
#include "kernels/backend.h"
#include "tests/reference/random_model.h"

namespace sessa {

inline double BytesOfWeights(DType dtype, double n) {  // int8: and a bf16 scale for 64 of them
  return n * (dtype == DType::kI8 ? 1 + 2.0 / 64 : static_cast<double>(SizeOf(dtype)));
}

inline double BytesOfState(DType dtype, double n) {  // int8: and a scale's byte for 64 of them
  return n * (dtype == DType::kI8 ? 1 + 1.0 / kStateGroup : static_cast<double>(SizeOf(dtype)));
}

// Writes to every page of this process's own memory: huge pages that were never written are all read from
// one, which stays in the cache.
inline void TouchMemory() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin, end;
    char rights[5], device[16];
    int64_t offset, inode;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %15s %" SCNd64, &begin, &end,
                    rights, &offset, device, &inode) < 6 ||
        inode != 0 || rights[1] != 'w' || end - begin < (16 << 20)) {
      continue;
    }
    for (auto* p = reinterpret_cast<volatile char*>(begin); p < reinterpret_cast<char*>(end); p += 4096)
      *p = *p;
  }
}

// A Sessa of 24 layers, heads of 64, K = H / 4; and SmolLM2-135M.
inline ModelConfig SessaShape(int D) {
  ModelConfig c;
  c.vocab_size = 32000, c.hidden_size = D, c.num_layers = 24;
  c.num_heads = D / 64, c.num_kv_heads = D / 256;
  c.family = SessaConfig{};
  c.max_position_embeddings = 1 << 20;
  return c;
}
inline ModelConfig SmolLm2Shape() {
  ModelConfig c;
  c.vocab_size = 49152, c.hidden_size = 576, c.num_layers = 30, c.num_heads = 9, c.num_kv_heads = 3;
  c.tie_word_embeddings = true;
  LlamaConfig llama;
  llama.intermediate_size = 1536;
  c.family = llama;
  c.max_position_embeddings = 1 << 20;
  return c;
}

// A whole model behind Workers, and plans made by hand: `batch` sequences with `context` tokens each.
class ModelBench {
 public:
  ModelBench(DType weight_dtype, DType state_dtype, CpuOptions cpu, ModelConfig config, int max_tokens)
      : weight_dtype_(weight_dtype), state_dtype_(state_dtype), config_(std::move(config)) {
    EngineOptions o;
    o.weight_dtype = weight_dtype;
    o.state_dtype = state_dtype;
    o.num_threads = cpu.num_threads;
    o.activation_dtype = cpu.activation_dtype;
    o.amx = cpu.matrix_unit == MatrixUnit::kAmx;
    o.max_step_tokens = 2048;
    o.state_cache_bytes = int64_t{1} << 40;
    workers_ = *Workers::Create(o, {max_tokens / 64 + 64}, config_, *RandomModel(config_, 1, DType::kBF16));
    greedy_.temperature = 0;
    TouchMemory();
  }
  // One step of `rows` rows for each of `batch` sequences at position `context`. The pages hold zeros or what
  // earlier steps left there: the work is the same.
  void Step(int batch, int rows, int context, bool sample = true) {
    StepPlan plan;
    const int pages = (context + rows + 63) / 64;
    tokens_.assign(context + rows, 1);
    for (int b = 0; b < batch; ++b) {
      PlanSequence& s = plan.sequences.emplace_back();
      s.first_row = plan.num_rows();
      s.num_rows = rows;
      s.start = context;
      for (int i = 0; i < pages; ++i) s.pages.push_back((b * pages + i) % workers_->state().num_pages);
      s.sample = sample;
      s.sampling = &greedy_;
      s.tokens = &tokens_;
      s.prompt_size = 1;
      for (int r = 0; r < rows; ++r)
        plan.token_ids.push_back((b + r) % 1000), plan.positions.push_back(context + r);
    }
    workers_->Start(plan);
    if (!workers_->Finish(plan, &results_).ok()) std::abort();
  }
  double LinearWeights() const {
    const double D = config_.hidden_size, kv = config_.kv_size();
    const auto* llama = std::get_if<LlamaConfig>(&config_.family);
    return config_.num_layers *
           (llama ? (2 * D + 2 * kv + 3 * llama->intermediate_size) * D : 7 * D * D + 2 * kv * D);
  }
  double WeightBytes() const {  // of the linears and the output head
    return BytesOfWeights(weight_dtype_, LinearWeights() + 1.0 * config_.vocab_size * config_.hidden_size);
  }
  double StateBytes(int context) const {
    return BytesOfState(state_dtype_,
                        2.0 * config_.num_layers * context * (feedback_size() + config_.kv_size()));
  }
  double PrefillFlops(int rows, int context) const {
    const double t = context + rows / 2.0;
    return rows * 2 * LinearWeights() +
           config_.num_layers * rows * t * 4 * (config_.hidden_size + feedback_size());
  }

 private:
  int feedback_size() const {  // what a token's feedback keeps, of each of its two tensors
    return std::holds_alternative<SessaConfig>(config_.family) ? config_.hidden_size : 0;
  }

  const DType weight_dtype_, state_dtype_;
  const ModelConfig config_;
  std::unique_ptr<Workers> workers_;
  SamplingParams greedy_;
  std::vector<int32_t> tokens_;
  std::vector<SequenceResult> results_;
};

}  // namespace sessa
