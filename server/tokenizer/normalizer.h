// The normalizers of tokenizer.json: what text is turned into before its words are cut. Constant,
// thread-safe.
#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/characters_map.h"
#include "server/tokenizer/regex.h"

namespace sessa {

class Normalizer {
 public:
  // `json`: the "normalizer" of tokenizer.json. INVALID_ARGUMENT names a type that is not supported.
  static absl::StatusOr<Normalizer> Parse(const boost::json::value& json);

  // Requires: well-formed UTF-8. INVALID_ARGUMENT where a regular expression backtracks for ever.
  absl::StatusOr<std::string> Apply(std::string_view text) const;
  // Apply leaves at least one byte of so many; 0: it may leave none at all.
  int MaxShrink() const;
  bool writes_bytes() const;  // as characters (byte_level.h)

 private:
  enum class Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStripLeft,
    kStripRight,
    kStripAccents,
    kCleanText,
    kSpaceChinese,
    kStripMarks,
    kNmt,
    kPrepend,
    kReplace,
    kMap,
    kByteLevel
  };
  struct Step {
    Kind kind;
    std::string content = {};                            // kPrepend, kReplace
    std::vector<Regex> pattern = {};                     // kReplace: one
    std::shared_ptr<const CharactersMap> map = nullptr;  // kMap
  };
  absl::Status Add(const boost::json::value& json, int depth);
  absl::Status AddBert(const boost::json::value& json);
  void Add(Kind kind) { steps_.push_back({kind}); }
  static absl::StatusOr<std::string> Apply(const Step& step, std::string text);

  std::vector<Step> steps_;
};

}  // namespace sessa
