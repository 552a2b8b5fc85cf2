// JSON text to a tree, stricter than Boost.JSON's own parse: a key that is there twice and a number that is
// no finite double are errors which name the place ("messages[2].content"). Depth is bounded, so recursion
// over the tree is too.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "boost/json/value.hpp"

namespace sessa {

// INVALID_ARGUMENT, code invalid_json. Strings and keys of the result are valid UTF-8.
absl::StatusOr<boost::json::value> ParseJson(const std::string& text, int max_depth);

}  // namespace sessa
