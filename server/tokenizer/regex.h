// A regular expression of a tokenizer.json: Oniguruma's syntax as far as PCRE2 reads it the same way, over
// UTF-8 with Unicode properties. Constant, thread-safe. Matching is bounded: a pattern that backtracks for
// ever is an error.
#pragma once

#include <boost/json/value.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

struct pcre2_real_code_8;

namespace sessa {

class Regex {
 public:
  // INVALID_ARGUMENT with PCRE2's message.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // Matches `text` itself, which must not be empty.
  static Regex Literal(std::string text) { return Regex(nullptr, std::move(text)); }
  // Of the "pattern" of a part of tokenizer.json: {"String": text} or {"Regex": expression}. `where`: for
  // errors.
  static absl::StatusOr<Regex> OfPattern(const boost::json::value& part, const std::string& where);

  // All matches from left to right as [begin, end), empty ones left out. Requires: text is well-formed UTF-8.
  absl::StatusOr<std::vector<std::pair<size_t, size_t>>> FindAll(std::string_view text) const;
  // Each match replaced by `content`.
  absl::StatusOr<std::string> ReplaceAll(std::string_view text, std::string_view content) const;
  const std::string& literal() const { return literal_; }  // empty: an expression

 private:
  Regex(std::shared_ptr<const pcre2_real_code_8> code, std::string literal)
      : code_(std::move(code)), literal_(std::move(literal)) {}
  std::shared_ptr<const pcre2_real_code_8> code_;  // null: literal_ is found as it stands
  std::string literal_;
};

}  // namespace sessa
