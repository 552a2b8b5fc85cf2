// A regular expression of a tokenizer.json: Oniguruma's syntax as far as PCRE2 reads it the same way, over
// UTF-8 with Unicode properties. Constant, thread-safe. Matching is bounded: a pattern that backtracks for
// ever is an error.
#pragma once

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
  // The pattern that matches `text` itself.
  static std::string Quote(std::string_view text);

  // All matches from left to right as [begin, end), empty ones left out. Requires: text is well-formed UTF-8.
  absl::StatusOr<std::vector<std::pair<size_t, size_t>>> FindAll(std::string_view text) const;

 private:
  explicit Regex(std::shared_ptr<const pcre2_real_code_8> code) : code_(std::move(code)) {}
  std::shared_ptr<const pcre2_real_code_8> code_;
};

}  // namespace sessa
