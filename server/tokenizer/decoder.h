// Tokens to text, as the "decoder" of tokenizer.json says. What it does with a token depends at most on
// whether one went before and whether one follows, so that each token's text is made once, at load; only runs
// of bytes and the ends of a text are left for later (TextDecoder). Constant, thread-safe.
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/regex.h"

namespace sessa {

struct TokenText {
  std::string bytes;  // after other tokens
  std::string first;  // at the start of a text, where first_differs
  bool first_differs = false;
  bool is_byte = false;    // of byte fallback: bytes is that byte
  bool ends_word = false;  // its last byte is a space that is left out where no token follows
};

class Decoder {
 public:
  // `json`: the "decoder" of tokenizer.json; null: tokens with spaces between them. INVALID_ARGUMENT names
  // what is not supported.
  static absl::StatusOr<Decoder> Parse(const boost::json::value& json);

  TokenText TextOf(std::string_view token) const;

 private:
  friend class TextDecoder;
  enum class Kind { kSpaces, kByteLevel, kWordPiece, kMetaspace, kBpe, kReplace, kStrip, kCtc };
  struct Step {
    Kind kind;
    std::string a,
        b;  // kWordPiece: prefix; kMetaspace, kStrip: the character; kBpe: suffix; kReplace: content; kCtc:
            // pad, delimiter
    std::vector<Regex> pattern;  // kReplace: one
    bool flag = false;           // kWordPiece, kCtc: cleanup; kMetaspace: the first loses its spaces
    int start = 0, stop = 0;     // kStrip
  };
  absl::Status Add(const boost::json::value& json, int depth);
  absl::Status AddReplace(const boost::json::value& json);
  absl::Status AddStrip(const boost::json::value& json);
  static std::string Apply(const Step& step, std::string token, bool is_first, bool* ends_word);

  std::vector<Step> steps_;
  bool byte_fallback_ = false;
  bool drops_repeated_ = false;           // of neighbours that are one token (CTC)
  bool fused_ = false;                    // what follows is for the text as a whole
  std::string strip_;                     // the character that is taken from its ends
  int strip_start_ = 0, strip_stop_ = 0;  // at most so many
};

// One text, token by token. Not thread-safe.
class TextDecoder {
 public:
  // at_start false: what comes follows other text. `decoder` outlives this.
  TextDecoder(const Decoder* decoder, bool at_start)
      : decoder_(decoder), first_(at_start), strip_left_(at_start ? decoder->strip_start_ : 0) {}

  // Text that is complete now: well-formed UTF-8. A token is known by where its text lies. An ill-formed
  // piece becomes U+FFFD: of byte fallback each byte, as Hugging Face has it, which also gives up the
  // complete characters of such a run.
  std::string Push(const TokenText& token);
  // What was held back.
  std::string Flush();

 private:
  std::string TakeBytes(bool all);
  std::string Strip(std::string text);

  const Decoder* decoder_;
  bool first_;
  const TokenText* last_ = nullptr;
  int strip_left_;
  std::string pending_;  // an incomplete character
  std::string held_;     // shown unless the text ends here
};

}  // namespace sessa
