#include "engine/waiting_queue.h"

#include <algorithm>

#include "absl/base/macros.h"

namespace sessa {

bool TenantLedger::SmallestActive(int64_t* counter) const {
  bool found = false;
  for (const auto& [name, tenant] : tenants_) {
    if (tenant.num_requests == 0) continue;
    *counter = found ? std::min(*counter, tenant.counter) : tenant.counter;
    found = true;
  }
  return found;
}

Tenant* TenantLedger::Arrive(const std::string& name) {
  const auto [it, inserted] = tenants_.try_emplace(name);
  Tenant* tenant = &it->second;
  if (inserted) tenant->name = name;
  int64_t smallest = 0;
  if (tenant->num_requests == 0 && SmallestActive(&smallest))
    tenant->counter = std::max(tenant->counter, smallest);
  ++tenant->num_requests;
  return tenant;
}

void TenantLedger::Leave(Tenant* tenant) {
  ABSL_HARDENING_ASSERT(tenant->num_requests > 0);
  if (--tenant->num_requests > 0) return;
  int64_t smallest = 0;
  const bool active = SmallestActive(&smallest);
  for (auto it = tenants_.begin(); it != tenants_.end();) {
    const bool forget = it->second.num_requests == 0 && (!active || it->second.counter <= smallest);
    it = forget ? tenants_.erase(it) : std::next(it);
  }
}

namespace {

int64_t KeyOf(const Sequence& s) {
  return s.num_remaining() +
         absl::ToInt64Milliseconds(s.arrival - absl::UnixEpoch()) * kAgeingTokensPerSecond / 1000;
}

}  // namespace

PrefillRank RankOf(const Sequence& s, PrefillOrder order) {
  const bool shortest = order == PrefillOrder::kShortest;
  // A long recompute that has its pages may be overtaken by what is shorter; to get pages it goes first.
  if (s.resumed && !(shortest && s.status == SequenceStatus::kRunning)) return {s.priority, 0, 0, 0, s.id};
  return {s.priority, 1, s.tenant->counter, shortest ? s.num_remaining() : KeyOf(s), s.id};
}

void WaitingQueue::Push(Sequence* s) {
  Level& level = levels_[s->priority];
  s->queue_key = KeyOf(*s);
  bool inserted = false;
  if (s->resumed) {
    inserted = level.resumed.emplace(s->id, s).second;
  } else {
    TenantQueue& queue = level.fresh[s->tenant];
    inserted = queue.aged.emplace(std::pair(s->queue_key, s->id), s).second &&
               queue.shortest.emplace(std::pair(s->num_remaining(), s->id), s).second;
  }
  ABSL_HARDENING_ASSERT(inserted);
  ++size_;
}

void WaitingQueue::Remove(Sequence* s) {
  const auto it = levels_.find(s->priority);
  ABSL_HARDENING_ASSERT(it != levels_.end());
  Level& level = it->second;
  size_t erased = 0;
  if (s->resumed) {
    erased = level.resumed.erase(s->id);
  } else {
    const auto tenant = level.fresh.find(s->tenant);
    ABSL_HARDENING_ASSERT(tenant != level.fresh.end());
    TenantQueue& queue = tenant->second;
    erased = queue.aged.erase({s->queue_key, s->id}) & queue.shortest.erase({s->num_remaining(), s->id});
    if (queue.aged.empty()) level.fresh.erase(tenant);
  }
  ABSL_HARDENING_ASSERT(erased == 1);
  if (level.resumed.empty() && level.fresh.empty()) levels_.erase(it);
  --size_;
}

Sequence* WaitingQueue::Front(PrefillOrder order) const {
  if (levels_.empty()) return nullptr;
  const Level& level = levels_.begin()->second;
  if (!level.resumed.empty()) return level.resumed.begin()->second;
  Sequence* best = nullptr;
  for (const auto& [tenant, queue] : level.fresh) {
    Sequence* first = (order == PrefillOrder::kAged ? queue.aged : queue.shortest).begin()->second;
    if (best == nullptr || RankOf(*first, order) < RankOf(*best, order)) best = first;
  }
  return best;
}

bool WaitingQueue::Contains(const Sequence& s) const {
  const auto level = levels_.find(s.priority);
  if (level == levels_.end()) return false;
  if (s.resumed) return level->second.resumed.count(s.id) > 0;
  const auto tenant = level->second.fresh.find(s.tenant);
  return tenant != level->second.fresh.end() && tenant->second.aged.count({s.queue_key, s.id}) > 0;
}

}  // namespace sessa
