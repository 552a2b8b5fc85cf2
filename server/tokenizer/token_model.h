// The "model" of tokenizer.json: one word of the pre-tokenizer to token ids. Constant after construction,
// thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace sessa {

using Vocabulary = absl::flat_hash_map<std::string, int32_t>;

class TokenModel {
 public:
  explicit TokenModel(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  virtual ~TokenModel() = default;

  // Appends the ids of one word. Requires: well-formed UTF-8. INVALID_ARGUMENT for text that is no token
  // where the model has no token for what it does not know.
  virtual absl::Status Encode(std::string_view word, std::vector<int32_t>* ids) const = 0;

  // No id stands for more of the text than its token's own characters: nothing is dropped, and nothing
  // unknown becomes one id. `byte_level`: words are bytes written as characters (byte_level.h).
  virtual bool IsLossless(bool byte_level) const = 0;

  std::optional<int32_t> IdOf(std::string_view token) const {
    const auto it = vocabulary_.find(absl::string_view(token.data(), token.size()));
    return it == vocabulary_.end() ? std::nullopt : std::optional<int32_t>(it->second);
  }
  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Ids of tokens that have a later one as well, which IdOf gives and Encode uses.
  const std::vector<std::pair<std::string, int32_t>>& shadowed() const { return shadowed_; }

 protected:
  std::vector<std::pair<std::string, int32_t>> shadowed_;

 private:
  const Vocabulary vocabulary_;
};

// The ids of "<0x00>" ... "<0xFF>", which stand for bytes that have no other token; -1 where there is none.
std::vector<int32_t> ByteTokens(const TokenModel& model);

}  // namespace sessa
