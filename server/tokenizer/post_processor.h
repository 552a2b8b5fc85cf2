// The "post_processor" of tokenizer.json: the special tokens that go around a text.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sessa {

struct SpecialTokensAround {
  std::vector<int32_t> prefix, suffix;
};

// `id_of`: of a token by its name. INVALID_ARGUMENT names what is not supported.
absl::StatusOr<SpecialTokensAround> ParsePostProcessor(
    const boost::json::value& json, const std::function<std::optional<int32_t>(std::string_view)>& id_of);

}  // namespace sessa
