// Where the tokens of a sequence lie in the state cache, as numbers: how many pages they take, and of which
// class each of those must be. Pure functions of the cache's three sizes, so whoever counts pages counts
// alike: PagePool, which deals them out, the Scheduler, and the Engine before it has either.
#pragma once

#include <cstdint>

#include "kernels/round.h"
#include "kernels/tile.h"

namespace sessa {

// How much state there is, for all sequences.
struct StateSize {
  int page_size = 64;  // tokens
  int num_pages = 0;   // a multiple of num_ranks
  int num_ranks = 1;   // the classes of pages
  int num_slots = 0;   // of recurrent state, for sequences and snapshots; 0: the model keeps none
  // A step reads the pages that several of its sequences begin with once (kernels/shared_reads.h).
  bool shares_reads = false;
};

// Classes: with tensor parallelism part of the state is dealt out to ranks by tile, so the page
// with logical index i of a sequence must come from class ((i * page_size) / 64) % num_classes. Class c owns
// the physical pages [c * num_pages / num_classes, (c + 1) * num_pages / num_classes).
class PageGeometry {
 public:
  // Requires: num_pages >= num_classes >= 1; page_size is 16, 32 or 64.
  PageGeometry(int num_pages, int page_size, int num_classes);
  explicit PageGeometry(const StateSize& size)
      : PageGeometry(size.num_pages, size.page_size, size.num_ranks) {}

  int num_pages() const { return num_pages_; }
  int page_size() const { return page_size_; }  // tokens
  int num_classes() const { return num_classes_; }

  int PagesFor(int num_tokens) const { return CeilDiv(num_tokens, page_size_); }
  int ClassOfIndex(int index) const { return index * page_size_ / kTileTokens % num_classes_; }  // logical
  // How many of the logical pages [0, num_indices) are of class c.
  int CountOfClass(int num_indices, int c) const;
  int FirstOfClass(int c) const;  // physical; of num_classes: num_pages
  int ClassCapacity(int c) const { return FirstOfClass(c + 1) - FirstOfClass(c); }
  // The most pages that one sequence, alone in the cache, could have.
  int MaxPagesOfOneSequence() const;
  // As many pages as hold a sequence of so many tokens whatever the classes of its pages.
  static int64_t PagesToHold(int num_tokens, int page_size, int num_classes);

 private:
  int num_pages_, page_size_, num_classes_;
};

}  // namespace sessa
