// Byte-pair encoding (Sennrich et al. 2016): a word's characters, of which the pair with the best rank is
// merged, leftmost first, until none is left. Constant after construction, thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/tokenizer/token_model.h"

namespace sessa {

struct BpeOptions {
  std::optional<int32_t> unknown;  // for characters without a token; none: they are dropped
  bool fuse_unknown = false;       // neighbours become one
  bool byte_fallback = false;      // they become the tokens of their bytes, where all are there
  bool ignore_merges = false;      // a word that is a token is that token, whatever the merges say
  std::string prefix, suffix;      // written before characters inside a word, and after its last
};

class Bpe : public TokenModel {
 public:
  struct Merge {
    int32_t left, right, result;
  };
  // merges: best first.
  Bpe(Vocabulary vocabulary, const std::vector<Merge>& merges, BpeOptions options);

  // O(n log n) of the word's length.
  absl::Status Encode(std::string_view word, std::vector<int32_t>* ids) const override;
  bool IsLossless(bool byte_level) const override;

 private:
  struct Rank {
    int32_t rank, result;
  };
  struct Symbol {
    int32_t id;  // -1: merged into the one before
    int previous, next;
  };
  const Rank* Find(int32_t left, int32_t right) const {
    const auto it = ranks_.find({left, right});
    return it == ranks_.end() ? nullptr : &it->second;
  }
  int32_t IdOfCharacter(std::string_view character, bool is_first, bool is_last) const;
  void Symbols(std::string_view word, std::vector<Symbol>* symbols) const;
  void MergeAll(std::vector<Symbol>* symbols) const;

  const BpeOptions options_;
  absl::flat_hash_map<std::pair<int32_t, int32_t>, Rank> ranks_;
  std::array<int32_t, 0x10000> characters_;  // ids of those of the basic plane; -1: none
  std::vector<int32_t> byte_tokens_;         // [256]
};

}  // namespace sessa
