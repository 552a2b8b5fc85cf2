// The tokens that a checkpoint adds to its model's, and those that have names: of tokenizer.json and of the
// folder's configuration (ReadTokenizerConfig in files.h).
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/added_tokens.h"

namespace sessa {

// "added_tokens" of tokenizer.json: a list, or null.
absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const boost::json::value& list);

// "added_tokens_decoder" of the configuration: {"32000": {"content": "<pad>", ...}}.
absl::StatusOr<std::vector<AddedToken>> ParseAddedTokensDecoder(const boost::json::value& config);

// What bos_token, pad_token, ... and additional_special_tokens of the configuration name.
absl::StatusOr<std::vector<std::string>> ParseNamedTokens(const boost::json::value& config);

}  // namespace sessa
