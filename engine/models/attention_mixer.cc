#include "engine/models/attention_mixer.h"

namespace sessa {

AttentionMixer::AttentionMixer(const ModelRank& rank)
    : rank_(rank),
      rope_(MakeRopeTable(*rank.config)),
      columns_(rank.config->hidden_size, kColumnUnit, *rank.communicator),
      heads_(*rank.config, *rank.communicator) {}

StateShape AttentionMixer::Shape() const { return heads_.StateOf(rank_.options.state_dtype); }

void AttentionMixer::Load(int, const std::string& prefix, Loader* load) {
  const int D = rank_.config->hidden_size, kv = rank_.config->kv_size();
  const int kv_begin = heads_.kv_begin(), kv_end = kv_begin + heads_.kv_size();
  Layer& l = layers_.emplace_back();
  l.q = load->Linear(prefix + "q_proj", {D, D, heads_.columns.begin(), heads_.columns.end(), true});
  l.k = load->Linear(prefix + "k_proj", {kv, D, kv_begin, kv_end, true});
  l.v = load->Linear(prefix + "v_proj", {kv, D, kv_begin, kv_end, true});
  l.out = load->Linear(prefix + "out_proj", {D, D, columns_.begin(), columns_.end()});
}

absl::Status AttentionMixer::AllocateActivations() {
  const size_t D = rank_.config->hidden_size, rows = rank_.options.max_rows, kv = heads_.kv_size();
  return AllocateFloats(rank_.backend,
                        {{&q_, rows * D}, {&k_, rows * kv}, {&v_, rows * kv}, {&o_, rows * D}});
}

void AttentionMixer::BeginStep(StepRows* rows) {
  rows->inv_freq = rope_.inv_freq;
  rows->rope_scale = rope_.scale;
}

void AttentionMixer::Run(int layer, Matrix u, Matrix g, LayerState* state) {
  const Layer& l = layers_[layer];
  const int rows = u.rows, D = u.cols;
  const Matrix q = heads_.columns.Of(RowsOf(q_, rows, D)), o = RowsOf(o_, rows, D);
  const Matrix k = RowsOf(k_, rows, heads_.kv_size()), v = RowsOf(v_, rows, heads_.kv_size());
  PagedTensor *keys = &state->paged[0], *values = &state->paged[1];

  rank_.backend->Linear(u, {}, {{&l.q, q}, {&l.k, k}, {&l.v, v}});
  rank_.backend->Append({q, k, v, keys, values});
  rank_.backend->Attend({q, heads_.q_to_kv, heads_.columns.Of(o), keys, values});
  rank_.communicator->AllGather({{o, heads_.columns.bounds()}});
  const LinearCall out{&l.out, columns_.Of(g), Epilogue::kMultiply};
  rank_.backend->Linear(o, {}, {&out, 1});
  rank_.communicator->AllGather({{g, columns_.bounds()}});
}

}  // namespace sessa
