#include "engine/state_ledger.h"

#include <algorithm>
#include <vector>

#include "absl/base/macros.h"
#include "absl/strings/str_cat.h"

namespace sessa {

absl::Status StateLedger::CheckFits(int num_tokens) const {
  const PageGeometry& g = geometry();
  if (g.PagesFor(num_tokens) <= g.MaxPagesOfOneSequence()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the state cache holds ", static_cast<int64_t>(g.num_pages()) * g.page_size(), " tokens in all"));
}

void StateLedger::Admit(Sequence* s, std::string_view salt, int max_tokens) {
  HeldState& held = s->held;
  ABSL_HARDENING_ASSERT(held.pages_.empty() && held.num_computed_ == 0);
  if (enable_prefix_caching_) held.pages_ = pool_.Lookup(s->tokens, salt, max_tokens);
  held.num_registered_ = held.num_pages();
  held.num_computed_ = held.num_registered_ * geometry().page_size();
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

void StateLedger::Plan(const Sequence& s, int num_rows, PlanSequence* planned) const {
  const HeldState& held = s.held;
  ABSL_HARDENING_ASSERT(num_rows <= RoomFor(s));
  planned->start = held.num_computed_;
  planned->pages.assign(held.pages_.begin(),
                        held.pages_.begin() + geometry().PagesFor(held.num_computed_ + num_rows));
}

void StateLedger::Publish(Sequence* s, std::string_view salt, int num_computed) {
  HeldState& held = s->held;
  held.num_computed_ = num_computed;
  if (!enable_prefix_caching_) return;
  for (const int size = geometry().page_size(); (held.num_registered_ + 1) * size <= num_computed;
       ++held.num_registered_) {
    const int i = held.num_registered_;
    const auto tokens = absl::MakeConstSpan(s->tokens).subspan(static_cast<size_t>(i) * size, size);
    held.pages_[i] = pool_.Register(held.pages_[i], i == 0 ? -1 : held.pages_[i - 1], tokens, salt);
  }
}

void StateLedger::Release(Sequence* s) {
  pool_.Release(s->held.pages_);
  s->held = {};
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
  return absl::OkStatus();
}

}  // namespace sessa
