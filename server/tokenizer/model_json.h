// Reads the "model" of tokenizer.json. What would change ids and is not supported is an error, never ignored.
#pragma once

#include <boost/json/value.hpp>
#include <memory>

#include "absl/status/statusor.h"
#include "server/tokenizer/token_model.h"

namespace sessa {

constexpr int32_t kMaxTokenId = (4 << 20) - 1;  // tables are this long

// INVALID_ARGUMENT names the key. No two tokens have one id.
absl::StatusOr<std::unique_ptr<TokenModel>> ParseTokenModel(const boost::json::value& json);

}  // namespace sessa
