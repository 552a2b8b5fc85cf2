// A tokenizer folder's configuration beside tokenizer.json, from the files of today and of old.
#pragma once

#include <boost/json/value.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace sessa {

// DIR/tokenizer_config.json, an empty object without it. In a folder that was saved before there was
// added_tokens_decoder in it, what special_tokens_map.json says replaces its keys, and added_tokens.json
// becomes its added_tokens_decoder, as transformers has it.
absl::StatusOr<boost::json::value> ReadTokenizerConfig(const std::string& dir);

// tokenizer_config.json writes a token as a string or as an object with its "content". Empty when absent.
absl::StatusOr<std::string> TokenOfConfig(const boost::json::value& config, const char* key);

}  // namespace sessa
