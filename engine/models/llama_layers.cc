#include "engine/models/llama_layers.h"

#include "absl/strings/str_cat.h"

namespace sessa {

LlamaLayers::LlamaLayers(const ModelRank& rank)
    : rank_(rank),
      config_(std::get<LlamaConfig>(rank.config->family)),
      rope_(MakeRopeTable(*rank.config)),
      columns_(rank.config->hidden_size, kColumnUnit, *rank.communicator),
      inner_(config_.intermediate_size, kColumnUnit, *rank.communicator),
      heads_(*rank.config, *rank.communicator) {}

void LlamaLayers::Load(int layer, Loader* load) {
  const int D = rank_.config->hidden_size, I = config_.intermediate_size, d = heads_.head_dim;
  const int queries = rank_.config->q_size(), kv = rank_.config->kv_size();
  const int kv_begin = heads_.kv_begin(), kv_end = kv_begin + heads_.kv_size();
  const std::string prefix = absl::StrCat("model.layers.", layer, "."), attention = prefix + "self_attn.",
                    mlp = prefix + "mlp.";
  Layer& l = layers_.emplace_back();
  l.attention_norm = load->Vector(prefix + "input_layernorm.weight", {D});
  l.q = load->Linear(attention + "q_proj",
                     {queries, D, heads_.columns.begin(), heads_.columns.end(), config_.qkv_bias, d});
  l.k = load->Linear(attention + "k_proj", {kv, D, kv_begin, kv_end, config_.qkv_bias, d});
  l.v = load->Linear(attention + "v_proj", {kv, D, kv_begin, kv_end, config_.qkv_bias});
  if (config_.qk_norm) {
    l.q_norm = load->HeadVector(attention + "q_norm.weight", d);
    l.k_norm = load->HeadVector(attention + "k_norm.weight", d);
  }
  l.o = load->Linear(attention + "o_proj", {D, queries, columns_.begin(), columns_.end(), config_.out_bias});
  l.mlp_norm = load->Vector(prefix + "post_attention_layernorm.weight", {D});
  l.gate = load->Linear(mlp + "gate_proj", {I, D, inner_.begin(), inner_.end(), config_.mlp_bias});
  l.up = load->Linear(mlp + "up_proj", {I, D, inner_.begin(), inner_.end(), config_.mlp_bias});
  l.down = load->Linear(mlp + "down_proj", {D, I, columns_.begin(), columns_.end(), config_.mlp_bias});
  l.window = config_.windows.empty() ? 0 : config_.windows[layer];
}

absl::Status LlamaLayers::AllocateActivations() {
  const size_t rows = rank_.options.max_rows, queries = rank_.config->q_size(), kv = heads_.kv_size();
  return AllocateFloats(rank_.backend, {{&q_, rows * queries},
                                        {&k_, rows * kv},
                                        {&v_, rows * kv},
                                        {&o_, rows * queries},
                                        {&h_, rows * config_.intermediate_size}});
}

void LlamaLayers::BeginStep(StepRows* rows) {
  rows->inv_freq = rope_.inv_freq;
  rows->rope_scale = rope_.scale;
}

void LlamaLayers::Run(int layer, Matrix x, LayerState* state) {
  const Layer& l = layers_[layer];
  const int rows = x.rows, queries = rank_.config->q_size();
  const Matrix q = heads_.columns.Of(RowsOf(q_, rows, queries)), o = RowsOf(o_, rows, queries);
  const Matrix k = RowsOf(k_, rows, heads_.kv_size()), v = RowsOf(v_, rows, heads_.kv_size());
  const Matrix h = RowsOf(h_, rows, config_.intermediate_size);
  PagedTensor *keys = &state->paged[0], *values = &state->paged[1];
  const Buffer *q_norm = config_.qk_norm ? &l.q_norm : nullptr,
               *k_norm = config_.qk_norm ? &l.k_norm : nullptr;

  rank_.backend->Linear(x, RmsOf(l.attention_norm), {{&l.q, q}, {&l.k, k}, {&l.v, v}});
  rank_.backend->Append({q, k, v, keys, values, q_norm, k_norm, rank_.config->norm_eps});
  rank_.backend->Attend({q, heads_.q_to_kv, heads_.columns.Of(o), keys, values, l.window});
  rank_.communicator->AllGather({{o, heads_.columns.bounds()}});
  const LinearCall out{&l.o, columns_.Of(x), Epilogue::kAdd};
  rank_.backend->Linear(o, {}, {&out, 1});
  rank_.communicator->AllGather({{x, columns_.bounds()}});

  const LinearCall gated{&l.gate, inner_.Of(h), Epilogue::kSiluGate, &l.up};
  rank_.backend->Linear(x, RmsOf(l.mlp_norm), {&gated, 1});
  rank_.communicator->AllGather({{h, inner_.bounds()}});
  const LinearCall down{&l.down, columns_.Of(x), Epilogue::kAdd};
  rank_.backend->Linear(h, {}, {&down, 1});
  rank_.communicator->AllGather({{x, columns_.bounds()}});
}

}  // namespace sessa
