// See tenants.h.
#include "server/core/tenants.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"

namespace sessa {
namespace {

constexpr absl::Duration kMinRetry = absl::Seconds(1), kMaxRetry = absl::Minutes(1);
constexpr double kForget = 1.0 / 16;  // of the mean time of a tenant's requests

RateLimit StateOf(const TokenBucket& bucket, absl::Time now) {
  return {std::llround(bucket.size()),
          static_cast<int64_t>(std::floor(std::max(0.0, bucket.Level(now)) + 1e-6)),
          bucket.TimeUntilFull(now)};
}

}  // namespace

struct Tenants::Account {
  TenantLimits limits;
  TokenBucket requests, tokens;
  double mean_seconds = 0;  // that its requests took lately
  TenantUse use;
};

Tenants::Tenants(ApiKeys keys, int max_requests, Clock clock)
    : max_requests_(max_requests), clock_(clock), keys_(std::make_shared<const ApiKeys>(std::move(keys))) {}

Tenants::~Tenants() = default;

void Tenants::Limit(Account* account) const {
  const TenantLimits& limits = account->limits;
  const absl::Time now = clock_();
  account->requests.SetRate(limits.rate, limits.burst, now);
  account->tokens.SetRate(static_cast<double>(limits.tokens_per_minute) / 60,
                          static_cast<double>(limits.tokens_per_minute), now);
}

void Tenants::Reload(ApiKeys keys) {
  absl::MutexLock lock(&mutex_);
  keys_ = std::make_shared<const ApiKeys>(std::move(keys));
  for (auto it = accounts_.begin(); it != accounts_.end();) {
    Account& account = *it->second;
    account.limits = keys_->Limits(it->first);
    Limit(&account);
    const bool gone = account.use.running == 0 && !keys_->tenants().contains(it->first);
    it = gone ? accounts_.erase(it) : std::next(it);
  }
}

absl::StatusOr<std::string> Tenants::Authenticate(absl::string_view authorization) const {
  std::shared_ptr<const ApiKeys> keys;
  {
    absl::MutexLock lock(&mutex_);
    keys = keys_;
  }
  return keys->Tenant(authorization);
}

TenantLimits Tenants::Limits(const std::string& tenant) const {
  absl::MutexLock lock(&mutex_);
  return Find(tenant)->limits;
}

// Names come from Authenticate, so there are as many accounts as the key file has tenants.
Tenants::Account* Tenants::Find(const std::string& tenant) const {
  std::shared_ptr<Account>& account = accounts_[tenant];
  if (account == nullptr) {
    account = std::make_shared<Account>();
    account->use.label = accounts_.size() <= kMaxLabels ? tenant : kOtherTenants;
    account->limits = keys_->Limits(tenant);
    Limit(account.get());
  }
  return account.get();
}

absl::Status Tenants::TakeRequest(const std::string& tenant) {
  absl::MutexLock lock(&mutex_);
  Account& account = *Find(tenant);
  const absl::Time now = clock_();
  if (const absl::Duration wait = account.requests.TimeUntil(1, now); wait > absl::ZeroDuration()) {
    ++account.use.over_rate;
    return TenantLimitError(absl::StrCat("This API key's limit is ", account.limits.rate,
                                         " requests a second, ", account.limits.burst, " at once."),
                            wait);
  }
  account.requests.Take(1, now);
  return absl::OkStatus();
}

absl::Status Tenants::CheckRunning(Account* account) const {
  const int most = account->limits.max_requests > 0 ? account->limits.max_requests : max_requests_;
  const int running = account->use.running;
  if (most == 0 || running < most) return absl::OkStatus();
  ++account->use.over_requests;
  // The next of them ends, on average, after this part of the time that one takes.
  const absl::Duration wait =
      std::clamp(absl::Seconds(account->mean_seconds / std::max(1, running)), kMinRetry, kMaxRetry);
  return TenantLimitError(
      absl::StrCat("This API key has ", running, " requests running, the most it may have."), wait);
}

absl::Status Tenants::CheckRoom(const std::string& tenant) const {
  absl::MutexLock lock(&mutex_);
  Account& account = *Find(tenant);
  if (absl::Status room = CheckRunning(&account); !room.ok()) return room;
  const absl::Duration wait = account.tokens.TimeUntil(1, clock_());
  if (wait <= absl::ZeroDuration()) return absl::OkStatus();
  ++account.use.over_tokens;
  return TenantLimitError(
      absl::StrCat("This API key has used its ", account.limits.tokens_per_minute, " tokens a minute."),
      wait);
}

absl::StatusOr<Tenants::Pass> Tenants::Enter(const std::string& tenant, int64_t tokens) {
  absl::MutexLock lock(&mutex_);
  Account& account = *Find(tenant);
  if (absl::Status room = CheckRunning(&account); !room.ok()) return room;
  Pass pass;
  pass.begun_ = clock_();
  const absl::Duration wait = account.tokens.TimeUntil(static_cast<double>(tokens), pass.begun_);
  if (wait > absl::ZeroDuration()) {
    ++account.use.over_tokens;
    const int64_t left = StateOf(account.tokens, pass.begun_).remaining;
    return TenantLimitError(
        absl::StrCat("This API key's limit is ", account.limits.tokens_per_minute, " tokens a minute, ", left,
                     " are left, and the prompts and max_tokens come to ", tokens, "."),
        wait);
  }
  account.tokens.Take(static_cast<double>(tokens), pass.begun_);
  ++account.use.running;
  pass.tenants_ = this;
  pass.account_ = accounts_[tenant];
  pass.taken_ = tokens;
  return pass;
}

Tenants::Pass::Pass(Pass&& other) noexcept
    : tenants_(std::exchange(other.tenants_, nullptr)),
      account_(std::move(other.account_)),
      taken_(other.taken_),
      begun_(other.begun_) {}

Tenants::Pass& Tenants::Pass::operator=(Pass&& other) noexcept {
  if (this == &other) return *this;
  End(0, 0);
  tenants_ = std::exchange(other.tenants_, nullptr);
  account_ = std::move(other.account_);
  taken_ = other.taken_;
  begun_ = other.begun_;
  return *this;
}

void Tenants::Pass::End(int64_t prompt_tokens, int64_t generation_tokens) {
  Tenants* tenants = std::exchange(tenants_, nullptr);
  if (tenants == nullptr) return;
  absl::MutexLock lock(&tenants->mutex_);
  const absl::Time now = tenants->clock_();
  account_->tokens.GiveBack(static_cast<double>(taken_ - prompt_tokens - generation_tokens), now);
  --account_->use.running;
  if (prompt_tokens == 0) return;
  ++account_->use.requests;
  account_->use.prompt_tokens += prompt_tokens;
  account_->use.generation_tokens += generation_tokens;
  const double seconds = absl::ToDoubleSeconds(now - begun_);
  double& mean = account_->mean_seconds;
  mean = mean == 0 ? seconds : mean + kForget * (seconds - mean);
}

RateLimits Tenants::Remaining(const std::string& tenant) const {
  absl::MutexLock lock(&mutex_);
  const Account& account = *Find(tenant);
  const absl::Time now = clock_();
  RateLimits limits;
  if (account.requests.limited()) limits.requests = StateOf(account.requests, now);
  if (account.tokens.limited()) limits.tokens = StateOf(account.tokens, now);
  return limits;
}

std::vector<TenantUse> Tenants::Use() const {
  absl::MutexLock lock(&mutex_);
  std::map<std::string, TenantUse> sums;
  for (const auto& [name, account] : accounts_) {
    if (name.empty()) continue;  // without keys: the whole server's figures are its
    TenantUse& sum = sums[account->use.label];
    const TenantUse& use = account->use;
    sum.label = use.label;
    sum.requests += use.requests;
    sum.over_rate += use.over_rate;
    sum.over_tokens += use.over_tokens;
    sum.over_requests += use.over_requests;
    sum.prompt_tokens += use.prompt_tokens;
    sum.generation_tokens += use.generation_tokens;
    sum.running += use.running;
  }
  std::vector<TenantUse> all;
  for (auto& [label, use] : sums) all.push_back(std::move(use));
  return all;
}

}  // namespace sessa
