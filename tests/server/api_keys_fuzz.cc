// Input: a file of API keys. Checks that an error names a line and gives no key away, and that a file that is
// taken admits nobody but its keys.
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/core/api_keys.h"
#include "tests/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sessa::Check;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto keys = sessa::ApiKeys::Parse(text);
  if (!keys.ok()) {
    Check(keys.status().message().find("line") != absl::string_view::npos);
    return 0;
  }
  Check(!keys->required() || !keys->Tenant("").ok());
  Check(!keys->required() || !keys->Tenant("Bearer ").ok());
  Check(!keys->required() || !keys->Tenant(absl::StrCat("Bearer ", text, "x")).ok());
  for (const auto& [tenant, limits] : keys->tenants()) {
    Check(limits.weight >= 1 && limits.rate >= 0 && limits.tokens_per_minute >= 0 &&
          limits.max_requests >= 0);
    Check(limits.rate == 0 || limits.burst >= 1);
    Check(limits.min_priority <= limits.max_priority);
  }
  return 0;
}
