#include "engine/models/attention_mixer.h"

namespace sessa {

void AttentionMixer::Load(int, const std::string& prefix, Loader* load) {
  const int D = rank_.config->hidden_size;
  Layer& l = layers_.emplace_back();
  l.in = attention_.Load(prefix, /*has_bias=*/true, /*half_split=*/false, load);
  l.out = load->Linear(prefix + "out_proj", {D, D, rank_.columns.begin(), rank_.columns.end()});
}

void AttentionMixer::Run(int layer, Matrix u, Matrix g, LayerState* state) {
  const Layer& l = layers_[layer];
  const int rows = u.rows;
  rank_.backend->Linear(
      u, {}, {{&l.in.q, attention_.q(rows)}, {&l.in.k, attention_.k(rows)}, {&l.in.v, attention_.v(rows)}});
  rank_.backend->Append(attention_.AppendTo(state, rows));
  rank_.backend->Attend(attention_.AttendTo(state, rows));
  attention_.Gather(rows);
  const LinearCall out{&l.out, rank_.columns.Of(g), Epilogue::kMultiply};
  rank_.backend->Linear(attention_.o(rows), {}, {&out, 1});
  rank_.communicator->AllGather({{g, rank_.columns.bounds()}});
}

}  // namespace sessa
