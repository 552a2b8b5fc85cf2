#include "engine/models/attention_part.h"

namespace sessa {

AttentionPart::Weights AttentionPart::Load(const std::string& prefix, bool has_bias, bool half_split,
                                           Loader* load) const {
  const int D = rank_.config->hidden_size, queries = rank_.config->q_size(), kv = rank_.config->kv_size();
  const int begin = heads_.kv_begin(), end = begin + heads_.kv_size();
  const int head_dim = half_split ? heads_.head_dim : 0;
  Weights w;
  w.q = load->Linear(prefix + "q_proj",
                     {queries, D, heads_.columns.begin(), heads_.columns.end(), has_bias, head_dim});
  w.k = load->Linear(prefix + "k_proj", {kv, D, begin, end, has_bias, head_dim});
  w.v = load->Linear(prefix + "v_proj", {kv, D, begin, end, has_bias});
  return w;
}

absl::Status AttentionPart::AllocateActivations() {
  const size_t rows = rank_.options.max_rows, queries = rank_.config->q_size(), kv = heads_.kv_size();
  return AllocateFloats(rank_.backend,
                        {{&q_, rows * queries}, {&k_, rows * kv}, {&v_, rows * kv}, {&o_, rows * queries}});
}

}  // namespace sessa
