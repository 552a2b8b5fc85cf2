#include "engine/models/llama_layers.h"

#include "absl/strings/str_cat.h"

namespace sessa {

LlamaLayers::LlamaLayers(const ModelRank& rank)
    : rank_(rank),
      config_(std::get<LlamaConfig>(rank.config->family)),
      inner_(config_.intermediate_size, kColumnUnit, *rank.communicator),
      attention_(rank) {}

void LlamaLayers::Load(int layer, Loader* load) {
  const int D = rank_.config->hidden_size, I = config_.intermediate_size;
  const int queries = rank_.config->q_size(), d = attention_.heads().head_dim;
  const std::string prefix = absl::StrCat("model.layers.", layer, "."), attention = prefix + "self_attn.",
                    mlp = prefix + "mlp.";
  Layer& l = layers_.emplace_back();
  l.attention_norm = load->Vector(prefix + "input_layernorm.weight", {D});
  l.in = attention_.Load(attention, config_.qkv_bias, /*half_split=*/true, load);
  if (config_.qk_norm) {
    l.q_norm = load->HeadVector(attention + "q_norm.weight", d);
    l.k_norm = load->HeadVector(attention + "k_norm.weight", d);
  }
  l.o = load->Linear(attention + "o_proj",
                     {D, queries, rank_.columns.begin(), rank_.columns.end(), config_.out_bias});
  l.mlp_norm = load->Vector(prefix + "post_attention_layernorm.weight", {D});
  l.gate = load->Linear(mlp + "gate_proj", {I, D, inner_.begin(), inner_.end(), config_.mlp_bias});
  l.up = load->Linear(mlp + "up_proj", {I, D, inner_.begin(), inner_.end(), config_.mlp_bias});
  l.down =
      load->Linear(mlp + "down_proj", {D, I, rank_.columns.begin(), rank_.columns.end(), config_.mlp_bias});
  l.window = config_.windows.empty() ? 0 : config_.windows[layer];
}

absl::Status LlamaLayers::AllocateActivations() {
  if (absl::Status s = attention_.AllocateActivations(); !s.ok()) return s;
  const size_t rows = rank_.options.max_rows;
  return AllocateFloats(rank_.backend, {{&h_, rows * config_.intermediate_size}});
}

void LlamaLayers::Run(int layer, Matrix x, LayerState* state) {
  const Layer& l = layers_[layer];
  const int rows = x.rows;
  const Matrix h = RowsOf(h_, rows, config_.intermediate_size);

  rank_.backend->Linear(
      x, RmsOf(l.attention_norm),
      {{&l.in.q, attention_.q(rows)}, {&l.in.k, attention_.k(rows)}, {&l.in.v, attention_.v(rows)}});
  AppendCall append = attention_.AppendTo(state, rows);
  if (config_.qk_norm) append.q_norm = &l.q_norm, append.k_norm = &l.k_norm;
  append.norm_eps = rank_.config->norm_eps;
  rank_.backend->Append(append);
  rank_.backend->Attend(attention_.AttendTo(state, rows, l.window));
  attention_.Gather(rows);
  const LinearCall out{&l.o, rank_.columns.Of(x), Epilogue::kAdd};
  rank_.backend->Linear(attention_.o(rows), {}, {&out, 1});
  rank_.communicator->AllGather({{x, rank_.columns.bounds()}});

  const LinearCall gated{&l.gate, inner_.Of(h), Epilogue::kSiluGate, &l.up};
  const LinearCall down{&l.down, rank_.columns.Of(x), Epilogue::kAdd};
  if (rank_.communicator->size() == 1) return rank_.backend->LinearPair(x, RmsOf(l.mlp_norm), gated, down);
  rank_.backend->Linear(x, RmsOf(l.mlp_norm), {&gated, 1});
  rank_.communicator->AllGather({{h, inner_.bounds()}});
  rank_.backend->Linear(h, {}, {&down, 1});
  rank_.communicator->AllGather({{x, rank_.columns.bounds()}});
}

}  // namespace sessa
