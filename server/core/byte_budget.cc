// See byte_budget.h.
#include "server/core/byte_budget.h"

#include <algorithm>
#include <chrono>

namespace sessa {
namespace {

constexpr int64_t kStepBytes = 4 << 10;  // what is held is rounded up, so that the lock is seldom taken

int64_t SteadyNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

ByteBudget::Lease& ByteBudget::Lease::operator=(Lease&& other) noexcept {
  if (this == &other) return *this;
  Release();
  budget_ = std::exchange(other.budget_, nullptr);
  kind_ = other.kind_;
  charged_ = std::exchange(other.charged_, 0);
  key_ = std::exchange(other.key_, {0, 0});
  return *this;
}

bool ByteBudget::Lease::Resize(int64_t bytes) {
  if (budget_ == nullptr) return true;
  const int64_t beyond = std::max<int64_t>(0, bytes - kFreeBytes);
  const int64_t charged = (beyond + kStepBytes - 1) / kStepBytes * kStepBytes;
  return charged == charged_ || budget_->Resize(this, charged);
}

bool ByteBudget::Resize(Lease* lease, int64_t charged) {
  const int64_t more = charged - lease->charged_;
  std::function<void()> evict;
  bool fits = true;
  {
    absl::MutexLock lock(&mutex_);
    if (more > 0) {
      const int64_t ceiling = lease->kind_ == Kind::kInput ? max_bytes_ / 2 : max_bytes_;
      fits = used_ + more <= ceiling;
      // Early, as it takes them a moment to go.
      if (used_ - evicting_ + more > ceiling / 4 * 3 && !evictable_.empty() &&
          evictable_.begin()->first.first <= SteadyNanos() && evictable_.begin()->first != lease->key_) {
        auto oldest = evictable_.extract(evictable_.begin());
        evict = std::exchange(oldest.mapped().evict, nullptr);
        evicting_ += oldest.mapped().bytes;
        told_.insert(std::move(oldest));
        ++num_evicted_;
      }
      if (!fits) ++num_refused_;
    }
    if (fits) {
      used_ += more;
      lease->charged_ = charged;
      if (auto it = evictable_.find(lease->key_); it != evictable_.end()) it->second.bytes = charged;
      if (auto it = told_.find(lease->key_); it != told_.end()) {
        evicting_ += more;
        it->second.bytes = charged;
      }
    }
  }
  if (evict) evict();
  return fits;
}

void ByteBudget::Lease::MayEvict(absl::Duration after, std::function<void()> evict) {
  if (budget_ == nullptr) return;
  const int64_t from = SteadyNanos() + absl::ToInt64Nanoseconds(after);
  absl::MutexLock lock(&budget_->mutex_);
  budget_->Forget(this);
  key_ = {from, ++budget_->num_keys_};
  budget_->evictable_[key_] = {charged_, std::move(evict)};
}

void ByteBudget::Lease::MayNotEvict() {
  if (key_.second == 0) return;
  absl::MutexLock lock(&budget_->mutex_);
  budget_->Forget(this);
}

void ByteBudget::Forget(Lease* lease) {
  evictable_.erase(lease->key_);
  if (auto it = told_.find(lease->key_); it != told_.end()) {
    evicting_ -= it->second.bytes;
    told_.erase(it);
  }
  lease->key_ = {0, 0};
}

void ByteBudget::Lease::Release() {
  if (budget_ == nullptr) return;
  MayNotEvict();
  Resize(0);
}

int64_t ByteBudget::used() const {
  absl::MutexLock lock(&mutex_);
  return used_;
}

int64_t ByteBudget::num_refused() const {
  absl::MutexLock lock(&mutex_);
  return num_refused_;
}

int64_t ByteBudget::num_evicted() const {
  absl::MutexLock lock(&mutex_);
  return num_evicted_;
}

}  // namespace sessa
