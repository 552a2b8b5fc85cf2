// Who is next: requests already begun, then the tenant served least, then priority, then the shortest prompt,
// with ageing or without. Priority stands behind the tenant, so that nobody moves ahead of others by asking
// for it. The same orders rank prompts in the queue and prompts half computed, so they live here and not in
// the Scheduler. Deterministic; not thread-safe; owned by the Scheduler.
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
  uint64_t number = 0;   // grows with arrival; decides between equal counters
  int64_t counter = 0;   // tokens served over the weight, on the scale of TenantLedger
  int weight = 1;        // its share beside others that wait
  int num_requests = 0;  // alive; 0: idle
  int num_running = 0;   // sequences; kept by the Scheduler
};

// Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): the active
// tenant with the smallest counter goes first, and who comes back after idling starts at the smallest counter
// of the active ones: credit cannot be saved up. What counts are the tokens computed, of prompts less their
// prefix hits and of answers, over the tenant's weight. Idle tenants whose counter no longer says anything
// are forgotten, so the ledger stays small.
class TenantLedger {
 public:
  // One more live request; the pointer is valid until the matching Leave. Requires: weight >= 1. The newest
  // request's weight counts.
  Tenant* Arrive(const std::string& name, int weight);
  void Leave(Tenant* tenant);
  void Charge(Tenant* tenant, int64_t tokens) { tenant->counter += tokens * kScale / tenant->weight; }
  size_t size() const { return tenants_.size(); }

 private:
  static constexpr int64_t kScale = 1 << 20;  // so that a token over a weight of 1000 is exact to 0.1 %

  bool SmallestActive(int64_t* counter) const;  // false: nobody is active
  std::map<std::string, Tenant> tenants_;
  uint64_t next_number_ = 1;
};

// Ageing: a second of waiting weighs like this many tokens less to compute. As all age alike, a prompt of r
// tokens is overtaken, within its tenant and priority, only by those that arrive within r /
// kAgeingTokensPerSecond after it.
inline constexpr int64_t kAgeingTokensPerSecond = 1000;

enum class PrefillOrder {
  kAged,      // the shortest with ageing: what has waited long goes ahead of what is short
  kShortest,  // what has least to compute, however long others have waited
};

// Smaller goes first: begun before new, the tenant's counter and number, priority, the key of the order, the
// id. No two sequences are equal.
using PrefillRank = std::tuple<int, int64_t, uint64_t, int, int64_t, uint64_t>;
PrefillRank RankOf(const Sequence& sequence, PrefillOrder order);

class WaitingQueue {
 public:
  // Requires: not in the queue. While it is, tokens, priority, arrival and resumed must not change.
  void Push(Sequence* sequence);
  void Remove(Sequence* sequence);  // Requires: in the queue
  // Null when there is none. `only_idle_tenants`: of those that have nothing running.
  Sequence* Front(PrefillOrder order, bool only_idle_tenants = false) const;
  size_t size() const { return size_; }
  bool Contains(const Sequence& sequence) const;  // for tests and invariants

 private:
  using Keyed = std::map<std::tuple<int, int64_t, uint64_t>, Sequence*>;  // by priority, a key, the id
  struct TenantQueue {
    Keyed resumed;         // by age
    Keyed aged, shortest;  // the others, the same ones by queue_key and by num_tokens(): who waits has
                           // nothing computed
  };
  std::map<Tenant*, TenantQueue> tenants_;
  size_t size_ = 0;
};

}  // namespace sessa
