// API keys and the tenants they belong to. Keys are kept as SHA-256 digests, so a lookup tells nothing by its
// time. Constant after construction, thread-safe.
#pragma once

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sessa {

class ApiKeys {
 public:
  ApiKeys() = default;  // no keys: everyone is the default tenant

  // One key a line, "KEY" or "KEY TENANT"; '#' starts a comment. Errors name the line, never the key.
  static absl::StatusOr<ApiKeys> Parse(absl::string_view text);
  static absl::StatusOr<ApiKeys> Load(const std::string& path);

  bool required() const { return !tenants_.empty(); }
  // The tenant of an Authorization header ("Bearer KEY"), or UNAUTHENTICATED.
  absl::StatusOr<std::string> Tenant(absl::string_view authorization) const;

 private:
  absl::flat_hash_map<std::string, std::string> tenants_;  // digest -> tenant
};

}  // namespace sessa
