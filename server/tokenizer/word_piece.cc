#include "server/tokenizer/word_piece.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

absl::Status AddUnknown(std::optional<int32_t> unknown, std::vector<int32_t>* ids) {
  if (!unknown.has_value())
    return absl::InvalidArgumentError(
        "it has a word that is no token, and the tokenizer has no unknown token");
  ids->push_back(*unknown);
  return absl::OkStatus();
}

bool BeginsCharacter(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

}  // namespace

WordPiece::WordPiece(Vocabulary vocabulary, std::optional<int32_t> unknown, std::string prefix,
                     size_t max_characters)
    : TokenModel(std::move(vocabulary)),
      unknown_(unknown),
      prefix_(std::move(prefix)),
      max_characters_(max_characters) {
  for (const auto& [token, id] : this->vocabulary()) longest_ = std::max(longest_, token.size());
}

absl::Status WordPiece::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (std::count_if(word.begin(), word.end(), BeginsCharacter) > static_cast<int64_t>(max_characters_))
    return AddUnknown(unknown_, ids);
  const size_t first = ids->size();
  std::string piece;
  for (size_t begin = 0; begin < word.size();) {
    size_t end = std::min(word.size(), begin + longest_);
    std::optional<int32_t> id;
    for (; end > begin; --end) {
      if (end < word.size() && !BeginsCharacter(word[end])) continue;
      piece = begin > 0 ? prefix_ : "";
      piece.append(word, begin, end - begin);
      if (id = IdOf(piece); id.has_value()) break;
    }
    if (!id.has_value()) {
      ids->resize(first);
      return AddUnknown(unknown_, ids);
    }
    ids->push_back(*id);
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status WordLevel::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  const auto id = IdOf(word);
  if (!id.has_value()) return AddUnknown(unknown_, ids);
  ids->push_back(*id);
  return absl::OkStatus();
}

}  // namespace sessa
