#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/jinja_ast.h"

namespace sessa::jinja {

// Renders statements with the variables of `context`. Bounded in steps and in output; INVALID_ARGUMENT names
// the line and what went wrong, or says what the template itself raised.
absl::StatusOr<std::string> Evaluate(const std::vector<Statement>& statements,
                                     const boost::json::object& context);

}  // namespace sessa::jinja
