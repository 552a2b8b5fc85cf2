// API keys, the tenants they belong to and what those may ask for. The file holds SHA-256 hashes, so who
// reads it has no key. A slow hash would defend passwords, which can be guessed; a key has at least 128
// random bits, which cannot, and a slow hash for each request would be a way to wear the server out. Constant
// after construction, thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sessa {

struct TenantLimits {
  static constexpr int kMostUrgent = -1000, kLeastUrgent = 1000;

  int weight = 1;                 // its share beside others that wait
  double rate = 0;                // requests a second in the long run; 0: no limit
  int burst = 0;                  // requests that may come at once; at least 1 where there is a rate
  int64_t tokens_per_minute = 0;  // of prompts and answers, and as many at once; 0: no limit
  int max_requests = 0;           // running at once; 0: the server's own limit
  int min_priority = kMostUrgent, max_priority = kLeastUrgent;  // what its requests may ask for
};

class ApiKeys {
 public:
  ApiKeys() = default;  // no keys: everyone is the default tenant

  static constexpr size_t kMaxFileBytes = 16 << 20;

  // One key a line: "sha256:HEX [TENANT] [weight=N] [rate=R] [burst=N] [tokens_per_minute=N] [max_requests=N]
  // [min_priority=N] [max_priority=N]"; '#' after a space or at the start of a line begins a comment. Lines
  // of one tenant state a field once or agree. A first word without "sha256:" is a key in plain text: still
  // taken, and counted. Errors name line and field and repeat nothing of the file.
  static absl::StatusOr<ApiKeys> Parse(absl::string_view text);
  // The same, with the path in the errors; a file without a key is one.
  static absl::StatusOr<ApiKeys> Load(const std::string& path);

  bool required() const { return !keys_.empty(); }
  int num_keys() const { return static_cast<int>(keys_.size()); }
  int num_plain_keys() const { return num_plain_keys_; }
  // The tenant of an Authorization header ("Bearer KEY"), or UNAUTHENTICATED.
  absl::StatusOr<std::string> Tenant(absl::string_view authorization) const;
  // The limits by tenant; a tenant that the file does not name has the defaults.
  const std::map<std::string, TenantLimits>& tenants() const { return tenants_; }
  TenantLimits Limits(const std::string& tenant) const;

 private:
  struct Key {
    std::string digest, tenant;
  };
  // By HMAC of the digest under a secret of this process: nobody knows which bytes a look-up compares, so its
  // time tells nothing of them.
  absl::flat_hash_map<std::string, Key> keys_;
  std::map<std::string, TenantLimits> tenants_;
  int num_plain_keys_ = 0;
};

// The first word of a key's line: "sha256:" and the hash in hexadecimal.
std::string HashedKey(absl::string_view key);
inline constexpr char kHashedKeyPrefix[] = "sha256:";

}  // namespace sessa
