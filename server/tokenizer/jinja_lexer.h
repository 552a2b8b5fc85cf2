// Cuts a template into text, tags and the tokens inside them, with the white space rules that Hugging Face
// renders chat templates with: trim_blocks, lstrip_blocks and the - and + marks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sessa::jinja {

struct Token {
  enum class Kind {
    kText,
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kInteger,
    kFloat,
    kString,
    kSymbol,
    kEnd
  };
  Kind kind;
  std::string text;  // of a string: its value
  int line = 1;

  bool Is(Kind k, std::string_view t) const { return kind == k && text == t; }
};

// Ends in one kEnd. INVALID_ARGUMENT names the line.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace sessa::jinja
