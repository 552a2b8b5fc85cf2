// One budget of memory for all that the front ends hold for clients: bodies while they are read, wait and are
// parsed, tokens that wait for a reader, answers being gathered and written; REST and gRPC together. A holder
// has a Lease and says how much it holds now. Thread-safe; a Lease belongs to one thread at a time.
//
// Who is refused: input (bodies, which are work not yet begun) at half of the budget, output at its end, so
// that new work cannot take from answers that run. Before it comes to that the holder that has been at it for
// longest is evicted: a client that sends and reads fast always gets in, whoever opens bodies or leaves
// answers unread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace sessa {

class ByteBudget {
 public:
  // Nothing is charged for the first so many bytes of each holder, so that a short request and its answer
  // always find room. The holders' number has limits of its own: 4096 connections come to 32 MiB.
  static constexpr int64_t kFreeBytes = 8 << 10;

  enum class Kind { kInput, kOutput };

  // Gives back what it holds when it goes. Moved from, it is empty.
  class Lease {
   public:
    Lease() = default;  // of no budget: everything fits
    Lease(ByteBudget* budget, Kind kind) : budget_(budget), kind_(kind) {}
    Lease(Lease&& other) noexcept { *this = std::move(other); }
    Lease& operator=(Lease&& other) noexcept;
    ~Lease() { Release(); }

    // From now on `bytes` are held. False: there is no room for more and nothing has changed; less always
    // fits.
    bool Resize(int64_t bytes);
    // Once `after` has passed the budget may call `evict`, once, when memory is short: on any thread, without
    // locks held; it must not block. One that is on its way may come just after MayNotEvict.
    void MayEvict(absl::Duration after, std::function<void()> evict);
    void MayNotEvict();
    int64_t charged() const { return charged_; }

   private:
    friend class ByteBudget;
    void Release();

    ByteBudget* budget_ = nullptr;
    Kind kind_ = Kind::kInput;
    int64_t charged_ = 0;
    std::pair<int64_t, int64_t> key_ = {0, 0};  // in holders_; {0, 0}: not there
  };

  explicit ByteBudget(int64_t max_bytes) : max_bytes_(max_bytes) {}

  int64_t max_bytes() const { return max_bytes_; }
  int64_t used() const;
  int64_t num_refused() const;
  int64_t num_evicted() const;

 private:
  struct Holder {
    int64_t bytes = 0;
    std::function<void()> evict;  // null: was called
  };
  using Key = std::pair<int64_t, int64_t>;  // steady time from which it may be evicted, and a number
  using Holders = std::map<Key, Holder>;

  bool Resize(Lease* lease, int64_t charged);
  void Forget(Lease* lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t max_bytes_;
  mutable absl::Mutex mutex_;
  int64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t evicting_ ABSL_GUARDED_BY(mutex_) = 0;  // of used_: of holders that were told to go
  int64_t num_refused_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_evicted_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_keys_ ABSL_GUARDED_BY(mutex_) = 0;
  Holders evictable_ ABSL_GUARDED_BY(mutex_);  // by the time from which they may go
  Holders told_ ABSL_GUARDED_BY(mutex_);       // to go
};

}  // namespace sessa
