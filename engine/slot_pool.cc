#include "engine/slot_pool.h"

#include <algorithm>

#include "absl/base/macros.h"
#include "absl/strings/str_cat.h"

namespace sessa {

SlotPool::SlotPool(int num_slots) : slots_(num_slots) {
  for (int32_t slot = num_slots - 1; slot >= 0; --slot) free_.push_back(slot);
}

int32_t SlotPool::Allocate() {
  if (free_.empty()) {
    if (unpinned_.empty()) return -1;
    const int32_t slot = unpinned_.front();
    Take(slot);
    return slot;
  }
  const int32_t slot = free_.back();
  free_.pop_back();
  slots_[slot].kind = Kind::kInUse;
  return slot;
}

void SlotPool::Free(int32_t slot) {
  ABSL_HARDENING_ASSERT(is_in_use(slot));
  slots_[slot].kind = Kind::kFree;
  free_.push_back(slot);
}

int32_t SlotPool::Find(int32_t page) const {
  const auto found = snapshots_.find(page);
  return found == snapshots_.end() ? -1 : found->second;
}

bool SlotPool::Attach(int32_t slot, int32_t page) {
  ABSL_HARDENING_ASSERT(is_in_use(slot));
  if (!snapshots_.try_emplace(page, slot).second) {
    Free(slot);
    return false;
  }
  Slot& s = slots_[slot];
  s.kind = Kind::kSnapshot;
  s.page = page;
  s.oldest = unpinned_.insert(unpinned_.end(), slot);
  return true;
}

void SlotPool::Detach(int32_t page) {
  const int32_t slot = Find(page);
  if (slot < 0) return;
  Take(slot);
  Free(slot);
}

void SlotPool::Pin(int32_t slot) {
  Slot& s = slots_[slot];
  ABSL_HARDENING_ASSERT(s.kind == Kind::kSnapshot);
  if (s.pins++ == 0) unpinned_.erase(s.oldest);
}

void SlotPool::Unpin(int32_t slot) {
  Slot& s = slots_[slot];
  ABSL_HARDENING_ASSERT(s.pins > 0);
  if (--s.pins == 0) s.oldest = unpinned_.insert(unpinned_.end(), slot);
}

void SlotPool::Take(int32_t slot) {
  Slot& s = slots_[slot];
  ABSL_HARDENING_ASSERT(s.kind == Kind::kSnapshot && s.pins == 0);
  unpinned_.erase(s.oldest);
  snapshots_.erase(s.page);
  s.kind = Kind::kInUse;
  s.page = -1;
}

absl::Status SlotPool::CheckInvariants() const {
  const auto fail = [](int32_t slot, const char* what) {
    return absl::InternalError(absl::StrCat("slot ", slot, ": ", what));
  };
  int unpinned = 0, free = 0, snapshots = 0;
  for (int32_t slot = 0; slot < num_slots(); ++slot) {
    const Slot& s = slots_[slot];
    free += s.kind == Kind::kFree;
    if ((s.kind == Kind::kFree) != (std::count(free_.begin(), free_.end(), slot) == 1))
      return fail(slot, "is free, or is not, against the list of free ones");
    if (s.kind != Kind::kSnapshot) {
      if (s.page != -1 || s.pins != 0) return fail(slot, "has a page or pins, yet it is no snapshot");
      continue;
    }
    ++snapshots;
    if (Find(s.page) != slot) return fail(slot, "its page does not find it");
    if (s.pins > 0) continue;
    ++unpinned;
    if (std::count(unpinned_.begin(), unpinned_.end(), slot) != 1) return fail(slot, "can never be evicted");
  }
  if (free != num_free() || snapshots != num_snapshots() || unpinned != static_cast<int>(unpinned_.size()))
    return fail(-1, "the counts disagree");
  return absl::OkStatus();
}

std::vector<int32_t> SlotPool::Pages() const {
  std::vector<int32_t> pages;
  for (const auto& [page, slot] : snapshots_) pages.push_back(page);
  return pages;
}

}  // namespace sessa
