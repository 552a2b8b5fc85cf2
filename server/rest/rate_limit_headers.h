// The headers of OpenAI's API that tell a tenant of its limits.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/core/tenants.h"

namespace sessa {

// OpenAI's headers: the tenant's limits, what is left of them and until when all is there again.
inline void AddRateLimits(const RateLimits& limits,
                          std::vector<std::pair<std::string, std::string>>* headers) {
  const auto add = [headers](const char* what, const std::optional<RateLimit>& limit) {
    if (!limit.has_value()) return;
    headers->emplace_back(absl::StrCat("x-ratelimit-limit-", what), absl::StrCat(limit->limit));
    headers->emplace_back(absl::StrCat("x-ratelimit-remaining-", what), absl::StrCat(limit->remaining));
    headers->emplace_back(absl::StrCat("x-ratelimit-reset-", what),
                          absl::FormatDuration(absl::Ceil(limit->reset, absl::Milliseconds(1))));
  };
  add("requests", limits.requests);
  add("tokens", limits.tokens);
}

}  // namespace sessa
