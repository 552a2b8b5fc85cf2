// The "Precompiled" normalizer: SentencePiece's map of characters to text (as of NFKC and its kin), a trie of
// bytes in Darts' double array and the texts that its leaves name. Every index is checked. Constant,
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sessa {

class CharactersMap {
 public:
  // As tokenizer.json has it. INVALID_ARGUMENT when it is none.
  static absl::StatusOr<std::shared_ptr<const CharactersMap>> FromBase64(const std::string& base64);

  // As Hugging Face applies it: a grapheme below six bytes is looked up whole, then each character; the
  // shortest entry that it begins with stands for all of it. Requires: well-formed UTF-8.
  std::string Apply(std::string_view text) const;

 private:
  CharactersMap() = default;
  // What the shortest entry that `piece` begins with says; none without one.
  std::optional<std::string_view> Find(std::string_view piece) const;

  std::vector<uint32_t> units_;
  std::string texts_;  // each ends in a zero byte
};

}  // namespace sessa
