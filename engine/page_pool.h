// Who holds which page of the state cache, and what free pages still remember. Pages are numbers here: no
// device pointer. Invariants (CheckInvariants): a page is either referenced or in the free list of its class,
// never both; an indexed page's parent is indexed too and has at least as many references; so a hit is a
// chain of live pages and nothing else. Not thread-safe: StateLedger owns it and is the only one who changes
// it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/cache_observer.h"
#include "engine/page_geometry.h"

namespace sessa {

// Prefix index: full pages found again by the tokens of the whole prefix. The key is a hash chain over (salt,
// tokens of each page); a hit compares the page's own tokens and the identity of its parent page (the salt,
// for a first page), so by induction the whole prefix is equal and a hash collision costs time, never a wrong
// hit.
//
// A page whose last reference goes keeps its contents. Each class reuses its free pages without contents
// first, then the one released longest ago; only then does that page, with all pages that continue it, leave
// the index.
class PagePool {
 public:
  // `on_unindexed`: told of each page that leaves the index; `observer`, which outlives this, also of those
  // that come to it. Null: nobody wants to know.
  explicit PagePool(const PageGeometry& geometry, std::function<void(int32_t page)> on_unindexed = nullptr,
                    CacheObserver* observer = nullptr);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  const PageGeometry& geometry() const { return geometry_; }
  int num_used_pages() const { return num_used_; }  // referenced ones
  int num_indexed_pages() const { return num_indexed_; }
  int class_free(int c) const { return classes_[c].num_free; }
  int ClassOfPage(int32_t page) const { return pages_[page].page_class; }
  int num_references(int32_t page) const { return pages_[page].references; }
  bool is_indexed(int32_t page) const { return pages_[page].indexed; }

  // A page, not indexed, with one reference, for logical index `index`; -1 when its class has no free page.
  int32_t Allocate(int index);

  // Drops one reference of each. Last first, so that of a freed prefix the tail is reused before its head.
  void Release(absl::Span<const int32_t> pages);

  // The longest indexed chain of full pages that `tokens` begins with, covering at most max_tokens tokens;
  // one reference on each is the caller's. The pages must not be written.
  std::vector<int32_t> Lookup(absl::Span<const int32_t> tokens, std::string_view salt, int max_tokens);

  // Indexes `page`, whose state is complete and final, as the continuation of `parent` (-1: a sequence's
  // first page, then salt counts). Returns the page to use from now on: `page`, or, where the same prefix is
  // indexed already, that page, and then the caller's reference has moved there and `page` is released.
  // Requires: the caller holds references to both; parent is indexed; tokens.size() == page_size.
  int32_t Register(int32_t page, int32_t parent, absl::Span<const int32_t> tokens, std::string_view salt);

  // INTERNAL, naming the page, when the bookkeeping contradicts itself. For tests: O(num_pages).
  absl::Status CheckInvariants() const;

  // From now on only these bits of each hash count. Requires: nothing is indexed.
  void SetHashMaskForTesting(uint64_t mask) { hash_mask_ = mask; }

 private:
  struct Page {
    int page_class = 0;
    int references = 0;
    int32_t previous = -1, next = -1;  // in the class's free list, oldest first
    bool indexed = false;              // the fields below count only then
    uint64_t hash = 0;
    int32_t parent = -1;
    int32_t next_same_hash = -1;
    std::vector<int32_t> tokens;    // [page_size]
    std::vector<int32_t> children;  // indexed pages whose parent this is
    std::string salt;               // first pages only
  };
  struct Class {
    int num_free = 0;
    int32_t oldest = -1, newest = -1;
  };

  uint64_t Hash(uint64_t parent_hash, absl::Span<const int32_t> tokens) const;
  uint64_t RootHash(std::string_view salt) const;
  int32_t Find(uint64_t hash, int32_t parent, absl::Span<const int32_t> tokens, std::string_view salt) const;
  void LinkFree(int32_t page, bool as_oldest);
  void UnlinkFree(int32_t page);
  void AddReference(int32_t page);
  void DropReference(int32_t page);
  void Unindex(int32_t page);  // and everything that continues it

  const PageGeometry geometry_;
  const std::function<void(int32_t)> on_unindexed_;
  CacheObserver* const observer_;
  std::vector<Page> pages_;
  std::vector<Class> classes_;
  absl::flat_hash_map<uint64_t, int32_t> index_;  // hash -> first page of the list by next_same_hash
  uint64_t hash_mask_ = ~uint64_t{0};
  int num_used_ = 0;
  int num_indexed_ = 0;
};

}  // namespace sessa
