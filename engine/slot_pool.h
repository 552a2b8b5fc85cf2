// Who holds which slot of recurrent state: one slot has the state of one sequence at one token, in all
// layers. Slots are numbers here, as pages are in PagePool. A slot is free; or in use, which is a sequence's
// own or a snapshot that the step in flight writes; or a snapshot, whose contents never change: it belongs to
// a page of the prefix index and is the state after that page's last token. Not thread-safe: StateLedger owns
// it and is the only one who changes it.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace sessa {

class SlotPool {
 public:
  explicit SlotPool(int num_slots);

  int num_slots() const { return static_cast<int>(slots_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_snapshots() const { return static_cast<int>(snapshots_.size()); }
  int num_in_use() const { return num_slots() - num_free() - num_snapshots(); }
  int num_pins(int32_t slot) const { return slots_[slot].pins; }
  bool is_in_use(int32_t slot) const { return slots_[slot].kind == Kind::kInUse; }

  // A slot in use, with whatever it holds: a free one, else that of the snapshot which nobody has needed for
  // the longest time and which is lost by that. -1: all others are in use or needed.
  int32_t Allocate();
  bool CanAllocate() const { return !free_.empty() || !unpinned_.empty(); }
  void Free(int32_t slot);  // Requires: in use

  // The snapshot of a page; -1: it has none.
  int32_t Find(int32_t page) const;
  // `slot` becomes the page's snapshot, or free when the page has one already (false). Requires: in use; the
  // page is indexed and `slot` holds the state after its last token.
  bool Attach(int32_t slot, int32_t page);
  // The page leaves the index, and its snapshot, if it has one, is free. Requires: not pinned.
  void Detach(int32_t page);
  // Somebody starts from the snapshot: it stays until as many calls of Unpin.
  void Pin(int32_t slot);
  void Unpin(int32_t slot);
  // The snapshot is in use, with its contents, and no page's any more. Requires: not pinned.
  void Take(int32_t slot);

  // INTERNAL when the bookkeeping contradicts itself. For tests: O(num_slots).
  absl::Status CheckInvariants() const;
  // The pages that have snapshots. For tests.
  std::vector<int32_t> Pages() const;

 private:
  enum class Kind { kFree, kInUse, kSnapshot };
  struct Slot {
    Kind kind = Kind::kFree;
    int32_t page = -1;                    // of a snapshot
    int pins = 0;                         // of a snapshot
    std::list<int32_t>::iterator oldest;  // in unpinned_, of a snapshot without pins
  };

  std::vector<Slot> slots_;
  std::vector<int32_t> free_;                        // the last one is the next
  std::list<int32_t> unpinned_;                      // snapshots, longest not needed first
  absl::flat_hash_map<int32_t, int32_t> snapshots_;  // by page
};

}  // namespace sessa
