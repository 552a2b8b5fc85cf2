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

Tenant* TenantLedger::Arrive(const std::string& name, int weight) {
  const auto [it, inserted] = tenants_.try_emplace(name);
  Tenant* tenant = &it->second;
  if (inserted) {
    tenant->name = name;
    tenant->number = next_number_++;
  }
  tenant->weight = weight;
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
  const Tenant& tenant = *s.tenant;
  // A long recompute that has its pages may be overtaken by what is shorter; to get pages it goes first.
  if (s.resumed && !(shortest && s.status == SequenceStatus::kRunning))
    return {0, tenant.counter, tenant.number, s.priority, 0, s.id};
  return {1, tenant.counter, tenant.number, s.priority, shortest ? s.num_remaining() : KeyOf(s), s.id};
}

void WaitingQueue::Push(Sequence* s) {
  TenantQueue& queue = tenants_[s->tenant];
  s->queue_key = KeyOf(*s);
  bool inserted = false;
  if (s->resumed) {
    inserted = queue.resumed.emplace(std::tuple(s->priority, 0, s->id), s).second;
  } else {
    inserted = queue.aged.emplace(std::tuple(s->priority, s->queue_key, s->id), s).second &&
               queue.shortest.emplace(std::tuple(s->priority, s->num_tokens(), s->id), s).second;
  }
  ABSL_HARDENING_ASSERT(inserted);
  ++size_;
}

void WaitingQueue::Remove(Sequence* s) {
  const auto it = tenants_.find(s->tenant);
  ABSL_HARDENING_ASSERT(it != tenants_.end());
  TenantQueue& queue = it->second;
  const size_t erased = s->resumed ? queue.resumed.erase({s->priority, 0, s->id})
                                   : queue.aged.erase({s->priority, s->queue_key, s->id}) &
                                         queue.shortest.erase({s->priority, s->num_tokens(), s->id});
  ABSL_HARDENING_ASSERT(erased == 1);
  if (queue.resumed.empty() && queue.aged.empty()) tenants_.erase(it);
  --size_;
}

Sequence* WaitingQueue::Front(PrefillOrder order, bool only_idle_tenants) const {
  Sequence* best = nullptr;
  for (const auto& [tenant, queue] : tenants_) {
    if (only_idle_tenants && tenant->num_running > 0) continue;
    const Keyed& fresh = order == PrefillOrder::kAged ? queue.aged : queue.shortest;
    Sequence* first = (queue.resumed.empty() ? fresh : queue.resumed).begin()->second;
    if (best == nullptr || RankOf(*first, order) < RankOf(*best, order)) best = first;
  }
  return best;
}

bool WaitingQueue::Contains(const Sequence& s) const {
  const auto tenant = tenants_.find(s.tenant);
  if (tenant == tenants_.end()) return false;
  const TenantQueue& queue = tenant->second;
  return s.resumed ? queue.resumed.contains({s.priority, 0, s.id})
                   : queue.aged.contains({s.priority, s.queue_key, s.id});
}

}  // namespace sessa
