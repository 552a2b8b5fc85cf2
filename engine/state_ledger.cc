#include "engine/state_ledger.h"

#include <algorithm>
#include <vector>

#include "absl/base/macros.h"
#include "absl/strings/str_cat.h"

namespace sessa {

StateLedger::StateLedger(const PageGeometry& geometry, int num_slots, bool enable_prefix_caching,
                         CacheObserver* observer)
    : slots_(num_slots),
      pool_(geometry,
            num_slots > 0 ? [this](int32_t page) { slots_.Detach(page); } : std::function<void(int32_t)>(),
            num_slots > 0 ? nullptr : observer),
      enable_prefix_caching_(enable_prefix_caching) {}

absl::Status StateLedger::CheckFits(int num_tokens) const {
  const PageGeometry& g = geometry();
  if (g.PagesFor(num_tokens) <= g.MaxPagesOfOneSequence()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the state cache holds ", static_cast<int64_t>(g.num_pages()) * g.page_size(), " tokens in all"));
}

void StateLedger::Find(Sequence* s, std::string_view salt, int max_tokens) {
  HeldState& held = s->held;
  ABSL_HARDENING_ASSERT(held.pages_.empty() && held.num_computed_ == 0);
  if (!enable_prefix_caching_) return;
  held.pages_ = pool_.Lookup(s->tokens, salt, max_tokens);
  if (slots_.num_slots() > 0) {  // then pages beyond the deepest snapshot are computed again
    const int indexed = held.num_pages();
    int depth = indexed;
    while (depth > 0 && (held.state_from_ = slots_.Find(held.pages_[depth - 1])) < 0) --depth;
    if (depth > 0) slots_.Pin(held.state_from_);
    if (depth < indexed) held.branch_ = indexed * geometry().page_size();
    pool_.Release(absl::MakeConstSpan(held.pages_).subspan(depth));
    held.pages_.resize(depth);
  }
  held.num_registered_ = held.num_pages();
  held.num_computed_ = held.num_registered_ * geometry().page_size();
}

// With no other slot left, a sequence takes the snapshot itself that it alone starts from.
bool StateLedger::HasSlotFor(const Sequence& s) const {
  const int32_t from = s.held.state_from_;
  return slots_.num_slots() == 0 || slots_.CanAllocate() || (from >= 0 && slots_.num_pins(from) == 1);
}

void StateLedger::Admit(Sequence* s) {
  if (slots_.num_slots() == 0) return;
  HeldState& held = s->held;
  ABSL_HARDENING_ASSERT(held.slot_ < 0 && HasSlotFor(*s));
  held.slot_ = slots_.Allocate();
  if (held.slot_ < 0) {
    slots_.Unpin(held.state_from_);
    slots_.Take(held.state_from_);
    held.slot_ = held.state_from_;
  }
  if (held.state_from_ < 0) held.state_from_ = held.slot_;
}

bool StateLedger::Grow(Sequence* s) {
  const int32_t page = pool_.Allocate(s->held.num_pages());
  if (page < 0) return false;
  s->held.pages_.push_back(page);
  return true;
}

int StateLedger::NumOwnPages(const Sequence& s) const {
  const std::vector<int32_t>& pages = s.held.pages();
  const auto own = std::partition_point(pages.begin(), pages.end(),  // shared ones come first
                                        [this](int32_t page) { return pool_.num_references(page) > 1; });
  return static_cast<int>(pages.end() - own);
}

void StateLedger::Plan(Sequence* s, int num_rows, PlanSequence* planned) {
  const HeldState& held = s->held;
  ABSL_HARDENING_ASSERT(num_rows <= RoomFor(*s));
  planned->start = held.num_computed_;
  planned->pages.assign(held.pages_.begin(),
                        held.pages_.begin() + geometry().PagesFor(held.num_computed_ + num_rows));
  if (slots_.num_slots() == 0) return;
  planned->slot = held.slot_;
  planned->state_from = held.num_computed_ > 0 ? held.state_from_ : -1;
  planned->snapshots.clear();
  if (enable_prefix_caching_) PlanSnapshots(s, num_rows, planned);
}

void StateLedger::PlanSnapshots(Sequence* s, int num_rows, PlanSequence* planned) {
  HeldState& held = s->held;
  const int size = geometry().page_size(), start = held.num_computed_;
  const auto at = [&](int num_tokens, bool rolling) {
    if (num_tokens <= start || num_tokens > start + num_rows) return;
    const int32_t slot = SlotForSnapshot(&held, rolling);
    if (slot < 0) return;
    planned->snapshots.push_back({num_tokens - 1 - start, slot});
    held.taken_.push_back({num_tokens, slot, rolling});
  };
  const int of_prompt = (s->prompt_size - 1) / size * size;  // its last token's row is always computed
  const int newest = s->num_tokens() / size * size;
  if (held.branch_ < of_prompt) at(held.branch_, /*rolling=*/false);
  at(of_prompt, /*rolling=*/false);
  if (newest > s->prompt_size) at(newest, /*rolling=*/true);
}

// The sequence's last one of its answer where that may be overwritten.
int32_t StateLedger::SlotForSnapshot(HeldState* held, bool rolling) {
  const HeldState::SnapshotAt last = held->rolling_;
  if (!rolling || last.slot < 0) return slots_.Allocate();
  held->rolling_ = {};
  const int32_t page = held->pages_[last.num_tokens / geometry().page_size() - 1];
  if (slots_.Find(page) != last.slot || slots_.num_pins(last.slot) > 0) return slots_.Allocate();
  slots_.Take(last.slot);
  return last.slot;
}

void StateLedger::Advance(Sequence* s, int num_computed) {
  LetGoOfStart(&s->held);
  s->held.num_computed_ = num_computed;
}

void StateLedger::Publish(Sequence* s, std::string_view salt, int num_computed) {
  HeldState& held = s->held;
  Advance(s, num_computed);
  if (!enable_prefix_caching_) return;
  for (const int size = geometry().page_size(); (held.num_registered_ + 1) * size <= num_computed;
       ++held.num_registered_) {
    const int i = held.num_registered_;
    const auto tokens = absl::MakeConstSpan(s->tokens).subspan(static_cast<size_t>(i) * size, size);
    held.pages_[i] = pool_.Register(held.pages_[i], i == 0 ? -1 : held.pages_[i - 1], tokens, salt);
  }
  PublishSnapshots(&held, num_computed);
}

void StateLedger::PublishSnapshots(HeldState* held, int num_computed) {
  size_t num_published = 0;  // the others are of the step behind this one
  for (const HeldState::SnapshotAt& taken : held->taken_) {
    if (taken.num_tokens > num_computed) break;
    ++num_published;
    const bool kept = slots_.Attach(taken.slot, held->pages_[taken.num_tokens / geometry().page_size() - 1]);
    if (kept && taken.rolling) held->rolling_ = taken;
  }
  held->taken_.erase(held->taken_.begin(), held->taken_.begin() + num_published);
}

// The state is in its own slot from now on, or nowhere.
void StateLedger::LetGoOfStart(HeldState* held) {
  if (held->state_from_ >= 0 && held->state_from_ != held->slot_) slots_.Unpin(held->state_from_);
  held->state_from_ = held->slot_;
}

void StateLedger::Release(Sequence* s) {
  HeldState& held = s->held;
  LetGoOfStart(&held);
  for (const HeldState::SnapshotAt& taken : held.taken_) slots_.Free(taken.slot);
  if (held.slot_ >= 0) slots_.Free(held.slot_);
  pool_.Release(held.pages_);
  held = {};
}

absl::Status StateLedger::CheckInvariants(absl::Span<const Sequence* const> holders) const {
  if (absl::Status pool = pool_.CheckInvariants(); !pool.ok()) return pool;
  std::vector<int> references(geometry().num_pages());
  for (const Sequence* s : holders) {
    const auto fail = [s](const char* what) {
      return absl::InternalError(absl::StrCat("sequence ", s->id, ": ", what));
    };
    if (RoomFor(*s) < 0) return fail("tokens without pages");
    for (int i = 0; i < s->held.num_pages(); ++i) {
      const int32_t page = s->held.pages()[i];
      ++references[page];
      if (pool_.ClassOfPage(page) != geometry().ClassOfIndex(i)) return fail("a page of the wrong class");
      const bool registered = i < s->held.num_registered();
      if (registered != pool_.is_indexed(page))
        return fail("an open page that others can find, or a lost one");
      if (!registered && pool_.num_references(page) != 1) return fail("an open page is shared");
    }
  }
  for (int page = 0; page < geometry().num_pages(); ++page) {
    if (references[page] != pool_.num_references(page)) {
      return absl::InternalError(
          absl::StrCat("page ", page, ": its references are not those of live sequences"));
    }
  }
  return CheckSlots(holders);
}

absl::Status StateLedger::CheckSlots(absl::Span<const Sequence* const> holders) const {
  if (absl::Status slots = slots_.CheckInvariants(); !slots.ok()) return slots;
  std::vector<int> pins(slots_.num_slots()), owners(slots_.num_slots());
  for (const Sequence* s : holders) {
    const HeldState& held = s->held;
    const auto fail = [s](const char* what) {
      return absl::InternalError(absl::StrCat("sequence ", s->id, ": ", what));
    };
    if ((held.slot_ >= 0) != (slots_.num_slots() > 0))
      return fail("runs without a slot, or with a needless one");
    if (held.slot_ < 0) continue;
    ++owners[held.slot_];
    for (const HeldState::SnapshotAt& taken : held.taken_) ++owners[taken.slot];
    if (held.state_from_ == held.slot_) continue;
    ++pins[held.state_from_];
    if (held.num_computed_ != held.num_registered_ * geometry().page_size() || held.num_computed_ == 0)
      return fail("starts from a snapshot amid a page");
    if (slots_.Find(held.pages_[held.num_registered_ - 1]) != held.state_from_)
      return fail("starts from another prefix's snapshot");
  }
  for (int32_t slot = 0; slot < slots_.num_slots(); ++slot) {
    if (owners[slot] != (slots_.is_in_use(slot) ? 1 : 0) || pins[slot] != slots_.num_pins(slot))
      return absl::InternalError(
          absl::StrCat("slot ", slot, ": its owners or pins are not the live sequences"));
  }
  for (int32_t page : slots_.Pages()) {
    if (!pool_.is_indexed(page)) return absl::InternalError("a snapshot of a page that nothing finds");
  }
  return absl::OkStatus();
}

}  // namespace sessa
