// Encoding and decoding; reading tokenizer.json is in tokenizer_json.cc.
#include "server/tokenizer/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "server/tokenizer/utf8.h"

namespace sessa {

// Hugging Face's order: added tokens of the raw text, normalization, added tokens of the normalized text,
// words, BPE.
absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  if (const size_t at = FindInvalidUtf8(text); at != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("the text is not UTF-8: byte ", at));
  }
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = prefix_;
  for (const auto& raw : raw_added_.Split(text)) {
    if (raw.id >= 0) {
      ids.push_back(raw.id);
      continue;
    }
    const std::string normalized = normalizer_.Apply(raw.text);
    for (const auto& piece : normalized_added_.Split(normalized)) {
      if (piece.id >= 0) {
        ids.push_back(piece.id);
      } else if (absl::Status done = EncodePiece(piece.text, &ids); !done.ok()) {
        return done;
      }
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

absl::Status Tokenizer::EncodePiece(std::string_view text, std::vector<int32_t>* ids) const {
  auto words = pre_tokenizer_->Split(text);
  if (!words.ok()) return words.status();
  for (const std::string& word : *words) bpe_->Encode(word, ids);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (int32_t id : ids) {
    if (!skip_special || !IsSpecial(id)) bytes += TokenBytes(id);
  }
  return RepairUtf8(bytes);
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  return Known(id) ? std::string_view(tokens_[id].bytes) : std::string_view();
}

std::optional<int32_t> Tokenizer::IdOf(std::string_view token) const {
  const auto it = ids_.find(absl::string_view(token.data(), token.size()));
  return it == ids_.end() ? std::nullopt : std::optional<int32_t>(it->second);
}

}  // namespace sessa
