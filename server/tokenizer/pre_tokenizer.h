// Cuts text into the words that the model works on, as the "pre_tokenizer" of tokenizer.json says: each of
// its parts is a way to find matches and what becomes of them, or a rewriting of words. Constant,
// thread-safe.
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/regex.h"

namespace sessa {

class PreTokenizer {
 public:
  // `json`: the "pre_tokenizer" of tokenizer.json; null: a text is one word. INVALID_ARGUMENT names what is
  // not supported.
  static absl::StatusOr<PreTokenizer> Parse(const boost::json::value& json);

  // `at_start`: the text is the beginning of what is encoded. Requires: well-formed UTF-8.
  absl::StatusOr<std::vector<std::string>> Split(std::string_view text, bool at_start) const;
  bool drops_text() const;    // what some pattern matches
  bool writes_bytes() const;  // as characters (byte_level.h)

 private:
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Kind {
    kSplitRegex,       // at what `regex` finds
    kSplitCharacters,  // at each character that `is` tells
    kSplitScripts,     // where another script begins; what comes before the first is dropped
    kPrefixSpace,      // a space before a word that does not begin with one
    kBytes,            // bytes as characters
    kSpaces,           // Metaspace: `text` for spaces, and before words as `prepend` says
  };
  enum class Prepend { kAlways, kFirst, kNever };
  struct Step {
    Kind kind;
    std::vector<Regex> regex = {};     // kSplitRegex: one
    bool (*is)(char32_t c) = nullptr;  // kSplitCharacters
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;                // the gaps are the matches
    std::string text = {};              // kSpaces
    Prepend prepend = Prepend::kNever;  // kSpaces
  };
  struct Word {
    std::string text;
    bool is_first;  // it begins where the text began
  };
  absl::Status Add(const boost::json::value& json, int depth);
  absl::Status AddByteLevel(const boost::json::value& json);
  absl::Status AddMetaspace(const boost::json::value& json);
  absl::Status AddRegex(std::string_view pattern, Behavior behavior, bool invert = false);
  static absl::StatusOr<Behavior> ParseBehavior(const std::string& name);
  static absl::Status Apply(const Step& step, Word word, std::vector<Word>* out);
  static absl::Status Cut(const Step& step, const Word& word, std::vector<Word>* out);

  std::vector<Step> steps_;
};

}  // namespace sessa
