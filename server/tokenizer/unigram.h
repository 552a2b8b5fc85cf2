// Unigram (Kudo 2018): of all ways to cut a word into tokens the one with the best sum of scores, found by
// Viterbi's method over a trie of the tokens. Constant after construction, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/tokenizer/token_model.h"

namespace sessa {

class Unigram : public TokenModel {
 public:
  // Tokens with their scores, by id. `unknown`: what characters become that no token begins with, neighbours
  // as one; with byte_fallback they become the tokens of their bytes, where all are there.
  Unigram(const std::vector<std::pair<std::string, double>>& tokens, std::optional<int32_t> unknown,
          bool byte_fallback);

  // O(length of the word * length of the longest token).
  absl::Status Encode(std::string_view word, std::vector<int32_t>* ids) const override;
  bool IsLossless(bool byte_level) const override;

 private:
  struct Node {
    int32_t first_child = 0, num_children = 0;  // in labels_ and nodes: those of one node stand together
    int32_t id = -1;                            // of the token that ends here
  };
  int32_t Child(int32_t node, unsigned char byte) const;
  absl::Status AddUnknown(std::string_view text, std::vector<int32_t>* ids) const;

  std::vector<Node> nodes_;            // [0] is the root
  std::vector<unsigned char> labels_;  // of the byte that leads to each node
  std::vector<double> scores_;         // by id
  const std::optional<int32_t> unknown_;
  const bool byte_fallback_;
  std::vector<int32_t> byte_tokens_;
  double unknown_score_ = 0;
};

}  // namespace sessa
