#pragma once

#include <boost/json/value.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace sessa {

// A whole file; NOT_FOUND when it cannot be opened.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

// INVALID_ARGUMENT, naming `name`, when it is too large or no JSON.
absl::StatusOr<boost::json::value> ParseJsonFile(std::string_view text, const std::string& name);

// tokenizer_config.json writes a token as a string or as an object with its "content". Empty when absent.
absl::StatusOr<std::string> TokenOfConfig(const boost::json::value& config, const char* key);

}  // namespace sessa
