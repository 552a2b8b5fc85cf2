#include "engine/page_pool.h"

#include <algorithm>
#include <utility>

#include "absl/base/macros.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace sessa {

PagePool::PagePool(const PageGeometry& geometry, std::function<void(int32_t)> on_unindexed,
                   CacheObserver* observer)
    : geometry_(geometry),
      on_unindexed_(std::move(on_unindexed)),
      observer_(observer),
      pages_(geometry.num_pages()),
      classes_(geometry.num_classes()) {
  for (int c = 0; c < geometry.num_classes(); ++c) {
    for (int page = geometry.FirstOfClass(c + 1) - 1; page >= geometry.FirstOfClass(c); --page) {
      pages_[page].page_class = c;
      LinkFree(page, /*as_oldest=*/true);
    }
  }
}

int32_t PagePool::Allocate(int index) {
  const int32_t page = classes_[geometry_.ClassOfIndex(index)].oldest;
  if (page < 0) return -1;
  if (pages_[page].indexed) Unindex(page);
  AddReference(page);
  return page;
}

void PagePool::Release(absl::Span<const int32_t> pages) {
  for (auto page = pages.rbegin(); page != pages.rend(); ++page) DropReference(*page);
}

uint64_t PagePool::RootHash(std::string_view salt) const { return absl::HashOf(salt) & hash_mask_; }

uint64_t PagePool::Hash(uint64_t parent_hash, absl::Span<const int32_t> tokens) const {
  return absl::HashOf(parent_hash, tokens) & hash_mask_;
}

int32_t PagePool::Find(uint64_t hash, int32_t parent, absl::Span<const int32_t> tokens,
                       std::string_view salt) const {
  const auto first = index_.find(hash);
  if (first == index_.end()) return -1;
  for (int32_t page = first->second; page >= 0; page = pages_[page].next_same_hash) {
    const Page& p = pages_[page];
    if (p.parent == parent && absl::MakeConstSpan(p.tokens) == tokens && (parent >= 0 || p.salt == salt))
      return page;
  }
  return -1;
}

std::vector<int32_t> PagePool::Lookup(absl::Span<const int32_t> tokens, std::string_view salt,
                                      int max_tokens) {
  std::vector<int32_t> hit;
  const int page_size = geometry_.page_size();
  const int max_pages = std::min(static_cast<int>(tokens.size()), max_tokens) / page_size;
  uint64_t hash = RootHash(salt);
  int32_t parent = -1;
  for (int i = 0; i < max_pages; ++i) {
    const auto page_tokens = tokens.subspan(static_cast<size_t>(i) * page_size, page_size);
    hash = Hash(hash, page_tokens);
    parent = Find(hash, parent, page_tokens, salt);
    if (parent < 0) break;
    hit.push_back(parent);
  }
  for (int32_t page : hit) AddReference(page);
  return hit;
}

int32_t PagePool::Register(int32_t page, int32_t parent, absl::Span<const int32_t> tokens,
                           std::string_view salt) {
  Page& p = pages_[page];
  ABSL_HARDENING_ASSERT(p.references > 0 && !p.indexed &&
                        static_cast<int>(tokens.size()) == geometry_.page_size());
  ABSL_HARDENING_ASSERT(parent < 0 || pages_[parent].indexed);
  const uint64_t hash = Hash(parent < 0 ? RootHash(salt) : pages_[parent].hash, tokens);
  if (const int32_t same = Find(hash, parent, tokens, salt); same >= 0) {
    AddReference(same);
    DropReference(page);
    return same;
  }
  p.indexed = true;
  p.hash = hash;
  p.parent = parent;
  p.tokens.assign(tokens.begin(), tokens.end());
  if (parent < 0) {
    p.salt = std::string(salt);
  } else {
    pages_[parent].children.push_back(page);
  }
  const auto [first, inserted] = index_.try_emplace(hash, page);
  p.next_same_hash = inserted ? -1 : std::exchange(first->second, page);
  ++num_indexed_;
  if (observer_ != nullptr) observer_->OnStored(page, parent, tokens, salt);
  return page;
}

// A free page's descendants are free too (a child has at most its parent's references), so their contents go
// with it: nothing could find them any more.
void PagePool::Unindex(int32_t root) {
  if (pages_[root].parent >= 0) {
    std::vector<int32_t>& siblings = pages_[pages_[root].parent].children;
    siblings.erase(std::find(siblings.begin(), siblings.end(), root));
  }
  std::vector<int32_t> stack = {root};
  while (!stack.empty()) {
    const int32_t page = stack.back();
    stack.pop_back();
    Page& p = pages_[page];
    stack.insert(stack.end(), p.children.begin(), p.children.end());
    const auto first = index_.find(p.hash);
    int32_t* link = &first->second;
    while (*link != page) link = &pages_[*link].next_same_hash;
    *link = p.next_same_hash;
    if (first->second < 0) index_.erase(first);
    p.indexed = false;
    p.parent = p.next_same_hash = -1;
    p.children.clear();
    p.salt.clear();
    --num_indexed_;
    if (on_unindexed_ != nullptr) on_unindexed_(page);
    if (observer_ != nullptr) observer_->OnRemoved(page);
    UnlinkFree(page);
    LinkFree(page, /*as_oldest=*/true);
  }
}

void PagePool::AddReference(int32_t page) {
  if (pages_[page].references++ > 0) return;
  UnlinkFree(page);
  ++num_used_;
}

void PagePool::DropReference(int32_t page) {
  ABSL_HARDENING_ASSERT(pages_[page].references > 0);
  if (--pages_[page].references > 0) return;
  LinkFree(page, /*as_oldest=*/!pages_[page].indexed);
  --num_used_;
}

void PagePool::LinkFree(int32_t page, bool as_oldest) {
  Page& p = pages_[page];
  Class& c = classes_[p.page_class];
  p.previous = as_oldest ? -1 : c.newest;
  p.next = as_oldest ? c.oldest : -1;
  (p.previous < 0 ? c.oldest : pages_[p.previous].next) = page;
  (p.next < 0 ? c.newest : pages_[p.next].previous) = page;
  ++c.num_free;
}

void PagePool::UnlinkFree(int32_t page) {
  Page& p = pages_[page];
  Class& c = classes_[p.page_class];
  (p.previous < 0 ? c.oldest : pages_[p.previous].next) = p.next;
  (p.next < 0 ? c.newest : pages_[p.next].previous) = p.previous;
  p.previous = p.next = -1;
  --c.num_free;
}

absl::Status PagePool::CheckInvariants() const {
  const auto fail = [](int32_t page, const char* what) {
    return absl::InternalError(absl::StrCat("page ", page, ": ", what));
  };
  std::vector<bool> listed(pages_.size());
  for (int c = 0; c < geometry_.num_classes(); ++c) {
    int count = 0;
    bool seen_indexed = false;
    for (int32_t page = classes_[c].oldest, previous = -1; page >= 0;
         previous = page, page = pages_[page].next) {
      if (listed[page]) return fail(page, "twice in a free list");
      listed[page] = true;
      if (pages_[page].page_class != c) return fail(page, "in the free list of another class");
      if (pages_[page].previous != previous) return fail(page, "the free list's links disagree");
      if (seen_indexed && !pages_[page].indexed) return fail(page, "empty, but behind pages with contents");
      seen_indexed |= pages_[page].indexed;
      ++count;
    }
    if (count != classes_[c].num_free) return fail(-1, "the count of free pages is wrong");
  }
  int used = 0, indexed = 0;
  for (int32_t page = 0; page < geometry_.num_pages(); ++page) {
    const Page& p = pages_[page];
    if (p.references < 0) return fail(page, "negative references");
    if ((p.references > 0) == listed[page]) return fail(page, "must be either referenced or free");
    used += p.references > 0;
    if (!p.indexed) continue;
    ++indexed;
    if (Find(p.hash, p.parent, p.tokens, p.salt) != page) return fail(page, "the index does not find it");
    for (int32_t child : p.children) {
      if (!pages_[child].indexed || pages_[child].parent != page)
        return fail(child, "not its parent's child");
    }
    if (p.parent < 0) continue;
    const Page& parent = pages_[p.parent];
    if (!parent.indexed) return fail(page, "its parent is not indexed");
    if (parent.references < p.references) return fail(page, "has more references than its parent");
    if (std::count(parent.children.begin(), parent.children.end(), page) != 1)
      return fail(page, "lost by its parent");
  }
  if (used != num_used_) return fail(-1, "the count of used pages is wrong");
  if (indexed != num_indexed_) return fail(-1, "the count of indexed pages is wrong");
  return absl::OkStatus();
}

}  // namespace sessa
