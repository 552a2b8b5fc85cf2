#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/jinja_ast.h"
#include "server/tokenizer/jinja_budget.h"

namespace sessa::jinja {

// Renders statements with the values of `variables`, which are the budget's. INVALID_ARGUMENT names the line
// and what went wrong, which limit was reached, or says what the template itself raised; CANCELLED.
absl::StatusOr<std::string> Evaluate(const std::vector<Statement>& statements,
                                     std::vector<std::pair<std::string, Value>> variables, Budget* budget);

}  // namespace sessa::jinja
