// Cuts a template into text, tags and the tokens inside them, as Jinja2 does with trim_blocks and
// lstrip_blocks, which Hugging Face sets: a line's end behind a block and the blanks before one are left out.
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
  std::string text;  // of a string: its value; of a number: without _
  int line = 1;

  bool Is(Kind k, std::string_view t) const { return kind == k && text == t; }
};

// Ends in one kEnd. INVALID_ARGUMENT names the line.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// The value of what stands between a string's quotes; false for an escape that cannot be.
bool Unescape(std::string_view literal, std::string* value);

}  // namespace sessa::jinja
