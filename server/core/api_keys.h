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

  static constexpr int kMaxWeight = 1000;

  // One key a line, "KEY [TENANT] [weight=N]"; '#' starts a comment. Keys of one tenant state its weight once
  // or agree. Errors name the line, never the key.
  static absl::StatusOr<ApiKeys> Parse(absl::string_view text);
  static absl::StatusOr<ApiKeys> Load(const std::string& path);

  bool required() const { return !tenants_.empty(); }
  // The tenant of an Authorization header ("Bearer KEY"), or UNAUTHENTICATED.
  absl::StatusOr<std::string> Tenant(absl::string_view authorization) const;
  // The tenant's share beside others that wait; 1 where the file says nothing.
  int Weight(absl::string_view tenant) const;

 private:
  absl::flat_hash_map<std::string, std::string> tenants_;  // digest -> tenant
  absl::flat_hash_map<std::string, int> weights_;          // by tenant; those that the file states
};

}  // namespace sessa
