#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/jinja_ast.h"

namespace sessa::jinja {

// Of a template's source; published ones have up to 50 KB.
constexpr size_t kMaxSourceBytes = 1 << 20;
// Statements inside each other, and parentheses, lists, calls and signs. The parser recurses in eleven
// functions for each.
constexpr int kMaxNesting = 100;
// Of an expression's tree, where every operator of a chain a + b + c is a level. Each takes about 1 KiB of
// stack, several times as much under a sanitizer.
constexpr int kMaxExpressionDepth = 250;

// The statements of a template. INVALID_ARGUMENT names the line and what is wrong or not supported (macros,
// includes, blocks of set, filter and call).
absl::StatusOr<std::vector<Statement>> Parse(std::string_view source);

}  // namespace sessa::jinja
