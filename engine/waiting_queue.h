// Who is next: priority, then requests already begun, then the tenant served least, then the shortest prompt,
// with ageing or without. The same orders rank prompts in the queue and prompts half computed, so they live
// here and not in the Scheduler. Deterministic; not thread-safe; owned by the Scheduler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "absl/time/time.h"
#include "engine/sequence.h"

namespace sessa {

struct Tenant {
  std::string name;
  int64_t counter = 0;   // tokens served, on the scale of TenantLedger
  int num_requests = 0;  // alive; 0: idle
};

// Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): the active
// tenant with the smallest counter goes first, and who comes back after idling starts at the smallest counter
// of the active ones: credit cannot be saved up. Idle tenants whose counter no longer says anything are
// forgotten, so the ledger stays small.
class TenantLedger {
 public:
  Tenant* Arrive(
      const std::string& name);  // one more live request; the pointer is valid until the matching Leave
  void Leave(Tenant* tenant);
  void Charge(Tenant* tenant, int64_t tokens) { tenant->counter += tokens; }
  size_t size() const { return tenants_.size(); }

 private:
  bool SmallestActive(int64_t* counter) const;  // false: nobody is active
  std::map<std::string, Tenant> tenants_;
};

// Ageing: a second of waiting weighs like this many tokens less to compute. As all age alike, a prompt of r
// tokens is overtaken, within its tenant and priority, only by those that arrive within r /
// kAgeingTokensPerSecond after it.
inline constexpr int64_t kAgeingTokensPerSecond = 1000;

enum class PrefillOrder {
  kAged,      // the shortest with ageing: what has waited long goes ahead of what is short
  kShortest,  // what has least to compute, however long others have waited
};

// Smaller goes first; no two sequences are equal (the last member is the id).
using PrefillRank = std::tuple<int, int, int64_t, int64_t, uint64_t>;
PrefillRank RankOf(const Sequence& sequence, PrefillOrder order);

class WaitingQueue {
 public:
  // Requires: not in the queue. While it is, tokens, priority, arrival and resumed must not change.
  void Push(Sequence* sequence);
  void Remove(Sequence* sequence);            // Requires: in the queue
  Sequence* Front(PrefillOrder order) const;  // null when empty
  size_t size() const { return size_; }
  bool Contains(const Sequence& sequence) const;  // for tests and invariants

 private:
  using Keyed = std::map<std::pair<int64_t, uint64_t>, Sequence*>;  // by a key, then the id
  struct TenantQueue {
    Keyed aged, shortest;  // the same sequences by queue_key and by num_remaining()
  };
  struct Level {  // one priority
    std::map<uint64_t, Sequence*> resumed;
    std::map<Tenant*, TenantQueue> fresh;
  };
  std::map<int, Level> levels_;
  size_t size_ = 0;
};

}  // namespace sessa
