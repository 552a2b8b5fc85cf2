// Who holds what of the state cache. Owns the PagePool and the SlotPool and alone writes what a sequence
// holds (HeldState), so that every rule of pages, slots, the prefix index and of what may be written is in
// one place. It decides nothing: which sequence starts, grows or gives way is the Scheduler's, who owns it.
// Not thread-safe.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/cache_observer.h"
#include "engine/page_geometry.h"
#include "engine/page_pool.h"
#include "engine/sequence.h"
#include "engine/slot_pool.h"
#include "engine/step_plan.h"

namespace sessa {

// Recurrent state, of models that keep any (num_slots > 0), is one tensor a sequence, not a row a token. Each
// running sequence has a slot of its own, which each step overwrites; so what others may start from are
// copies, snapshots, and a prefix is found only as far as its deepest snapshot. The pages stay the index: a
// snapshot belongs to the page whose last token it is the state after, and goes when that page leaves the
// index. (Where a model keeps recurrent state alone, pages hold nothing and are this index and no more.)
// Snapshots are taken where somebody will start from, as far as one can know: at the last page boundary that
// the prompt itself could start from; where a prompt leaves the indexed prefix of others; and at the newest
// page boundary of the answer, for the next turn, which replaces the one before. Marconi (Pan et al., MLSys
// 2025) shows that these are what is hit. A snapshot is its page's once the step that wrote it is published.
class StateLedger {
 public:
  // num_slots 0: the model keeps no recurrent state. `observer` may be null and outlives this; it is told of
  // nothing where there are slots.
  StateLedger(const PageGeometry& geometry, int num_slots, bool enable_prefix_caching,
              CacheObserver* observer = nullptr);
  StateLedger(const StateLedger&) = delete;
  StateLedger& operator=(const StateLedger&) = delete;

  const PageGeometry& geometry() const { return pool_.geometry(); }
  const PagePool& pool() const { return pool_; }
  const SlotPool& slots() const { return slots_; }
  PagePool* mutable_pool_for_testing() { return &pool_; }

  // RESOURCE_EXHAUSTED when a sequence could not have the state of num_tokens even alone. Reads constants
  // only: any thread may call it at any time.
  absl::Status CheckFits(int num_tokens) const;

  // The sequence takes hold of the longest prefix of its tokens, of at most max_tokens, whose state is there
  // already: it is computed. Finds nothing without prefix caching. Requires: it holds nothing.
  void Find(Sequence* s, std::string_view salt, int max_tokens);
  // Whether there is a slot for it, or it needs none.
  bool HasSlotFor(const Sequence& s) const;
  // It runs from now on, with a slot of its own. Requires: HasSlotFor it; it has been looked for.
  void Admit(Sequence* s);

  // One page more; false: none is free where the next one must lie.
  bool Grow(Sequence* s);
  // How many more tokens the pages that it has can hold.
  int RoomFor(const Sequence& s) const {
    return s.held.num_pages() * geometry().page_size() - s.held.num_computed();
  }
  // Pages that are free when it ends: the others are shared.
  int NumOwnPages(const Sequence& s) const;

  // Where the step finds and leaves the state of its next num_rows tokens. Requires: RoomFor them.
  void Plan(Sequence* s, int num_rows, PlanSequence* planned);
  // The rows of the plan will be computed before those of any plan that is made from here on: as if the state
  // of its tokens [0, num_computed) were there, but nobody else finds it.
  void Advance(Sequence* s, int num_computed);
  // They are computed: that state is final, and others may find its full pages and the snapshots taken.
  void Publish(Sequence* s, std::string_view salt, int num_computed);

  // It holds nothing any more, and has nothing computed.
  void Release(Sequence* s);

  // INTERNAL, saying what, when the books contradict themselves or what these sequences hold, who are all
  // that hold anything. For tests: O(everything).
  absl::Status CheckInvariants(absl::Span<const Sequence* const> holders) const;

 private:
  void PlanSnapshots(Sequence* s, int num_rows, PlanSequence* planned);
  int32_t SlotForSnapshot(HeldState* held, bool rolling);  // -1: none is left
  void PublishSnapshots(HeldState* held, int num_computed);
  void LetGoOfStart(HeldState* held);
  absl::Status CheckSlots(absl::Span<const Sequence* const> holders) const;

  SlotPool slots_;
  PagePool pool_;
  const bool enable_prefix_caching_;
};

}  // namespace sessa
