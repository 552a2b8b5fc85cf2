// Cuts text into the words that BPE works on. Every pre-tokenizer of tokenizer.json that may stand before
// ByteLevel is a regular expression and what becomes of its matches; ByteLevel ends the list. Constant,
// thread-safe.
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/regex.h"

namespace sessa {

class PreTokenizer {
 public:
  // `json`: the "pre_tokenizer" of tokenizer.json. INVALID_ARGUMENT names what is not supported.
  static absl::StatusOr<PreTokenizer> Parse(const boost::json::value& json);

  // Requires: well-formed UTF-8.
  absl::StatusOr<std::vector<std::string>> Split(std::string_view text) const;
  bool drops_text() const;  // what some pattern matches

 private:
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Step {
    Regex regex;
    Behavior behavior;
    bool invert;        // the gaps are the matches
    bool prefix_space;  // first put a space before text that does not begin with one
  };
  absl::Status Add(const boost::json::value& json, int depth);
  absl::Status AddRegex(std::string_view pattern, Behavior behavior, bool invert = false,
                        bool prefix_space = false);
  static absl::StatusOr<Behavior> ParseBehavior(const std::string& name);
  static absl::Status Apply(const Step& step, std::string word, std::vector<std::string>* out);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace sessa
