// Encoding and decoding; reading tokenizer.json is in tokenizer_json.cc.
#include "server/tokenizer/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "server/tokenizer/detokenizer.h"
#include "server/tokenizer/utf8.h"

namespace sessa {

// Hugging Face's order: added tokens of the raw text, normalization, added tokens of the normalized text,
// words, tokens of words.
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
    const absl::StatusOr<std::string> normalized = normalizer_.Apply(raw.text);
    if (!normalized.ok()) return normalized.status();
    for (const auto& piece : normalized_added_.Split(*normalized)) {
      const bool at_start = raw.text.data() == text.data() && piece.text.data() == normalized->data();
      if (piece.id >= 0) {
        ids.push_back(piece.id);
      } else if (absl::Status done = EncodePiece(piece.text, at_start, &ids); !done.ok()) {
        return done;
      }
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

absl::Status Tokenizer::EncodePiece(std::string_view text, bool at_start, std::vector<int32_t>* ids) const {
  auto words = pre_tokenizer_.Split(text, at_start);
  if (!words.ok()) return words.status();
  for (const std::string& word : *words) {
    if (absl::Status done = model_->Encode(word, ids); !done.ok()) return done;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special) const {
  Detokenizer detokenizer(this, skip_special);
  std::string text;
  for (int32_t id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Flush();
}

std::optional<int32_t> Tokenizer::IdOf(std::string_view token) const {
  const auto it = added_ids_.find(absl::string_view(token.data(), token.size()));
  return it == added_ids_.end() ? model_->IdOf(token) : std::optional<int32_t>(it->second);
}

}  // namespace sessa
