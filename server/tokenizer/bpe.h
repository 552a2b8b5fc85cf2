// Byte-pair encoding (Sennrich et al. 2016) over bytes: the pair with the best rank is merged, leftmost
// first, until none is left. Constant after construction, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace sessa {

class Bpe {
 public:
  // vocabulary: token bytes -> id. merges: pairs of ids and what they become, best first.
  struct Merge {
    int32_t left, right, result;
  };
  Bpe(absl::flat_hash_map<std::string, int32_t> vocabulary, const std::vector<Merge>& merges,
      bool ignore_merges);

  // Appends the ids of one word in O(n log n). Bytes that are no token of their own are dropped, as Hugging
  // Face does without an unknown token.
  void Encode(std::string_view word, std::vector<int32_t>* ids) const;
  bool drops_bytes() const;  // some byte is no token

 private:
  struct Rank {
    int32_t rank, result;
  };
  const Rank* Find(int32_t left, int32_t right) const {
    const auto it = ranks_.find({left, right});
    return it == ranks_.end() ? nullptr : &it->second;
  }

  absl::flat_hash_map<std::string, int32_t> vocabulary_;
  absl::flat_hash_map<std::pair<int32_t, int32_t>, Rank> ranks_;
  int32_t byte_ids_[256];
  const bool ignore_merges_;  // a word that is a token is that token, whatever the merges say
};

}  // namespace sessa
