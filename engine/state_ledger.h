// Who holds what of the state cache. Owns the PagePool and alone writes what a sequence holds (HeldState), so
// that every rule of pages, of the prefix index and of what may be written is in one place. It decides
// nothing: which sequence starts, grows or gives way is the Scheduler's, who owns it. Not thread-safe.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/page_geometry.h"
#include "engine/page_pool.h"
#include "engine/sequence.h"
#include "engine/step_plan.h"

namespace sessa {

class StateLedger {
 public:
  StateLedger(const PageGeometry& geometry, bool enable_prefix_caching)
      : pool_(geometry), enable_prefix_caching_(enable_prefix_caching) {}

  const PageGeometry& geometry() const { return pool_.geometry(); }
  const PagePool& pool() const { return pool_; }
  PagePool* mutable_pool_for_testing() { return &pool_; }

  // RESOURCE_EXHAUSTED when a sequence could not have the state of num_tokens even alone. Reads constants
  // only: any thread may call it at any time.
  absl::Status CheckFits(int num_tokens) const;

  // The sequence takes hold of the longest prefix of its tokens, of at most max_tokens, whose state is there
  // already: it is computed. Finds nothing without prefix caching. Requires: it holds nothing.
  void Admit(Sequence* s, std::string_view salt, int max_tokens);

  // One page more; false: none is free where the next one must lie.
  bool Grow(Sequence* s);
  // How many more tokens the pages that it has can hold.
  int RoomFor(const Sequence& s) const {
    return s.held.num_pages() * geometry().page_size() - s.held.num_computed();
  }
  // Pages that are free when it ends: the others are shared.
  int NumOwnPages(const Sequence& s) const;

  // Where the step finds and leaves the state of its next num_rows tokens. Requires: RoomFor them.
  void Plan(const Sequence& s, int num_rows, PlanSequence* planned) const;
  // The state of its tokens [0, num_computed) is complete and final: others may find its full pages. Rows of
  // the last plan beyond those do not count; the next ones overwrite them.
  void Publish(Sequence* s, std::string_view salt, int num_computed);

  // It holds nothing any more, and has nothing computed.
  void Release(Sequence* s);

  // INTERNAL, saying what, when the books contradict themselves or what these sequences hold, who are all
  // that hold anything. For tests: O(everything).
  absl::Status CheckInvariants(absl::Span<const Sequence* const> holders) const;

 private:
  PagePool pool_;
  const bool enable_prefix_caching_;
};

}  // namespace sessa
