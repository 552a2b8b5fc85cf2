// How a matrix or the heads of attention are dealt out to the tensor-parallel ranks: each has a run of whole
// units. Linears are cut by output columns and their results gathered, so that the order of every sum, and
// with it every bit, is the same for 1, 2, 4 and 8 ranks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/config.h"
#include "kernels/communicator.h"
#include "kernels/round.h"
#include "kernels/state.h"
#include "kernels/tensor.h"

namespace sessa {

inline constexpr int kColumnUnit = 16;
// Of what a layer gives, and of s with it: int8 groups of s stay whole.
constexpr int UnitOfColumns(DType state_dtype) {
  return state_dtype == DType::kI8 ? kStateGroup : kColumnUnit;
}

// [0, n) cut into a part for each rank, of whole units but for the last one.
class Shard {
 public:
  Shard(int n, int unit, const Communicator& ranks) : rank_(ranks.rank()) {
    const int units = CeilDiv(n, unit);
    for (int r = 0; r <= ranks.size(); ++r)
      bounds_.push_back(
          static_cast<int>(std::min<int64_t>(n, static_cast<int64_t>(units) * r / ranks.size() * unit)));
  }
  int begin() const { return bounds_[rank_]; }
  int end() const { return bounds_[rank_ + 1]; }
  int size() const { return end() - begin(); }
  const std::vector<int>& bounds() const { return bounds_; }  // [num_ranks + 1]
  // The columns of this rank.
  Matrix Of(Matrix full) const { return full.Columns(begin(), end()); }
  // The same parts of what has `k` of it for each.
  Shard Times(int k) const {
    Shard shard = *this;
    for (int& bound : shard.bounds_) bound *= k;
    return shard;
  }

 private:
  int rank_;
  std::vector<int> bounds_;
};

// The query heads of a rank, and the key and value heads that they read.
struct AttentionHeads {
  AttentionHeads(const ModelConfig& config, const Communicator& ranks)
      : head_dim(config.head_dim()), heads(config.num_heads, 1, ranks), columns(heads.Times(head_dim)) {
    const int group = config.num_heads / config.num_kv_heads;
    first_kv = heads.begin() / group;
    num_kv = heads.size() > 0 ? (heads.end() - 1) / group + 1 - first_kv : 0;
    for (int h = heads.begin(); h < heads.end(); ++h) q_to_kv.push_back(h / group - first_kv);
  }
  // Keys, then values.
  StateShape StateOf(DType dtype) const {
    using Use = PagedShape::Use;
    return {{{Use::kKey, num_kv, head_dim, dtype}, {Use::kValue, num_kv, head_dim, dtype}}, {}};
  }
  int kv_begin() const { return first_kv * head_dim; }  // columns
  int kv_size() const { return num_kv * head_dim; }

  int head_dim;
  Shard heads, columns;
  int first_kv, num_kv;
  std::vector<int> q_to_kv;  // this rank's query heads -> this rank's KV heads
};

}  // namespace sessa
