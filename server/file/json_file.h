// JSON in files: the one way to parse it, apart from what clients send (server/rest/json_parse.h, which is
// stricter).
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sessa {

// INVALID_ARGUMENT, naming `name` unless that is empty, when it is no JSON.
absl::StatusOr<boost::json::value> ParseJsonText(std::string_view text, std::string_view name);

// A file that may be left out: empty when there is none of that name. One that is there and holds nothing, as
// a download that broke off leaves it, is an error. Errors name it.
absl::StatusOr<std::string> ReadOptionalFile(const std::string& path);

}  // namespace sessa
