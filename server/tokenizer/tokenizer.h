// Text to token ids and back, as Hugging Face's `tokenizers` library describes it in tokenizer.json, with the
// same ids: normalizer, pre-tokenizer, model, post-processor, and a decoder for the way back. Constant after
// loading, thread-safe.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/tokenizer/added_tokens.h"
#include "server/tokenizer/decoder.h"
#include "server/tokenizer/normalizer.h"
#include "server/tokenizer/pre_tokenizer.h"
#include "server/tokenizer/token_model.h"

namespace sessa {

class Tokenizer {
 public:
  // From DIR/tokenizer.json and what ReadTokenizerConfig (files.h) finds beside it. Null without
  // tokenizer.json: such a model is served with token ids alone. INVALID_ARGUMENT names file and key.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& dir);
  // `config_json` may be empty.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json,
                                                             std::string_view config_json);

  // add_special_tokens: what the post-processor or add_bos_token and add_eos_token put around the text.
  // INVALID_ARGUMENT for ill-formed UTF-8, and for text that this tokenizer has no tokens for.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, bool add_special_tokens) const;

  // The fewest ids that Encode makes of so many bytes of text. 0 where nothing can be said, as this tokenizer
  // may drop text, or has one id for unknown text of any length.
  int64_t MinTokens(size_t num_bytes) const {
    return max_bytes_ == 0 ? 0 : static_cast<int64_t>((num_bytes + max_bytes_ - 1) / max_bytes_);
  }

  // Ids without a token are left out; ill-formed UTF-8 becomes U+FFFD.
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids, bool skip_special) const;

  // What a token stands for inside a text; its bytes may be a part of a character. Empty for ids without one.
  std::string_view TokenBytes(int32_t id) const {
    return Known(id) ? std::string_view(tokens_[id].text.bytes) : std::string_view();
  }
  // The same with what the text's start changes; null for ids without a token.
  const TokenText* TextOf(int32_t id) const { return Known(id) ? &tokens_[id].text : nullptr; }
  bool IsSpecial(int32_t id) const { return Known(id) && tokens_[id].special; }
  // Of the token as tokenizer.json writes it.
  std::optional<int32_t> IdOf(std::string_view token) const;
  int vocab_size() const { return static_cast<int>(tokens_.size()); }
  const Decoder& decoder() const { return decoder_; }
  const std::string& bos_token() const { return bos_token_; }  // empty: none
  const std::string& eos_token() const { return eos_token_; }

 private:
  friend class TokenizerParser;
  struct Token {
    std::string content;
    TokenText text;
    bool known = false, special = false;
  };
  Tokenizer() = default;
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Make(std::string_view tokenizer_json,
                                                         const boost::json::value& config);
  bool Known(int32_t id) const {
    return id >= 0 && id < static_cast<int32_t>(tokens_.size()) && tokens_[id].known;
  }
  absl::Status EncodePiece(std::string_view text, bool at_start, std::vector<int32_t>* ids) const;

  std::vector<Token> tokens_;                            // by id
  absl::flat_hash_map<std::string, int32_t> added_ids_;  // of tokens that the model has not
  std::unique_ptr<TokenModel> model_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Decoder decoder_;
  AddedTokenMatcher raw_added_, normalized_added_;
  std::vector<int32_t> prefix_, suffix_;  // special tokens around a text
  std::string bos_token_, eos_token_;
  size_t max_bytes_ = 0;  // of text that one id stands for; 0: any number
};

}  // namespace sessa
