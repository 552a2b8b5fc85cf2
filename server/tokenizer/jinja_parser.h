#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/jinja_ast.h"

namespace sessa::jinja {

// The statements of a template. INVALID_ARGUMENT names the line and what is wrong or not supported (macros,
// includes, blocks of set, filter and call).
absl::StatusOr<std::vector<Statement>> Parse(std::string_view source);

}  // namespace sessa::jinja
