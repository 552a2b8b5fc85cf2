// The tenants of a running server: whose key it is, and how much of its limits each has used. The keys can be
// replaced while requests run: those keep their tenant, and what a tenant has used stays used. Thread-safe.
//
// Requests are counted when their head has come, whatever becomes of them. Tokens are taken at admission for
// the prompt and all of max_tokens, for each choice, and what was not generated is given back at the end: so
// that no number of requests at once gets past the limit, which debts for what was generated would allow.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/monotonic.h"
#include "server/core/api_keys.h"
#include "server/core/token_bucket.h"

namespace sessa {

// What is left of one of a tenant's limits, for x-ratelimit-* headers.
struct RateLimit {
  int64_t limit = 0, remaining = 0;
  absl::Duration reset;  // until all of it is there again
};
struct RateLimits {
  std::optional<RateLimit> requests, tokens;  // none: no such limit
};

// Counters of one tenant, for metrics. Beyond kMaxLabels tenants the later ones are counted together under
// kOtherTenants.
struct TenantUse {
  std::string label;
  int64_t requests = 0;                                       // that ran and have ended
  int64_t prompt_tokens = 0, generation_tokens = 0;           // theirs
  int64_t over_rate = 0, over_tokens = 0, over_requests = 0;  // refused, by the limit that was reached
  int running = 0;                                            // requests
};

class Tenants {
  struct Account;

 public:
  static constexpr size_t kMaxLabels = 256;
  static constexpr char kOtherTenants[] = "other";
  using Clock = absl::Time (*)();

  // `max_requests`: at once, of a tenant that has no limit of its own; 0: none.
  Tenants(ApiKeys keys, int max_requests, Clock clock = &MonotonicNow);
  ~Tenants();

  // From now on these keys and limits.
  void Reload(ApiKeys keys);

  absl::StatusOr<std::string> Authenticate(absl::string_view authorization) const;
  TenantLimits Limits(const std::string& tenant) const;

  // The errors of the three below are RESOURCE_EXHAUSTED with the time after which the same would be taken,
  // if nothing else comes (TenantLimitError).

  // Counts one request.
  absl::Status TakeRequest(const std::string& tenant);
  // Whether another could run and has any tokens left: before its body is parsed, or even read.
  absl::Status CheckRoom(const std::string& tenant) const;

  // One running request of a tenant. Tenants outlives it.
  class Pass {
   public:
    Pass() = default;
    Pass(Pass&& other) noexcept;
    Pass& operator=(Pass&& other) noexcept;
    ~Pass() { End(0, 0); }  // it never ran
    // It has ended; what it took and did not use is given back. Further calls do nothing.
    void End(int64_t prompt_tokens, int64_t generation_tokens);

   private:
    friend class Tenants;
    Tenants* tenants_ = nullptr;
    std::shared_ptr<Account> account_;
    int64_t taken_ = 0;
    absl::Time begun_;
  };
  // Takes `tokens`, the most that it can come to, and a place among those that run.
  absl::StatusOr<Pass> Enter(const std::string& tenant, int64_t tokens);

  RateLimits Remaining(const std::string& tenant) const;
  std::vector<TenantUse> Use() const;  // by label; those that have sent anything

 private:
  Account* Find(const std::string& tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckRunning(Account* account) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Limit(Account* account) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int max_requests_;
  const Clock clock_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const ApiKeys> keys_ ABSL_GUARDED_BY(mutex_);
  mutable std::map<std::string, std::shared_ptr<Account>> accounts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sessa
