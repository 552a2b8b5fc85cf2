// The words: number of rows, of sequences, of logit rows; the rows' token ids; for each sequence the number
// of its rows, its start, slot, state_from, the numbers of its pages and snapshots, then these; the logit
// rows. First rows and positions follow from the order.
#include "engine/step_message.h"

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("a step of the leader's is refused: ", what));
}

// Words from the front; `ok` is false from the first one on that is not there.
class Reader {
 public:
  explicit Reader(absl::Span<const int32_t> words) : words_(words) {}
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && words_.empty(); }
  int32_t Word() {
    const absl::Span<const int32_t> one = Words(1);
    return one.empty() ? 0 : one[0];
  }
  absl::Span<const int32_t> Words(int64_t n) {
    ok_ = ok_ && n >= 0 && n <= static_cast<int64_t>(words_.size());
    if (!ok_) return {};
    const auto taken = words_.first(n);
    words_.remove_prefix(n);
    return taken;
  }

 private:
  absl::Span<const int32_t> words_;
  bool ok_ = true;
};

bool IsIn(int64_t value, int64_t low, int64_t end) { return value >= low && value < end; }

absl::Status CheckPages(const PlanSequence& s, const StateSize& state) {
  const PageGeometry geometry(state);
  if (static_cast<int>(s.pages.size()) < geometry.PagesFor(s.start + s.num_rows))
    return Bad("pages are missing");
  for (size_t i = 0; i < s.pages.size(); ++i) {
    const int c = geometry.ClassOfIndex(static_cast<int>(i));
    if (!IsIn(s.pages[i], geometry.FirstOfClass(c), geometry.FirstOfClass(c + 1)))
      return Bad(absl::StrCat("page ", s.pages[i], " cannot be the sequence's number ", i));
  }
  return absl::OkStatus();
}

absl::Status CheckSlots(const PlanSequence& s, int num_slots) {
  const bool has_state = num_slots > 0;
  if (!IsIn(s.slot, has_state ? 0 : -1, has_state ? num_slots : 0)) return Bad(absl::StrCat("slot ", s.slot));
  if (!IsIn(s.state_from, has_state && s.start > 0 ? 0 : -1, num_slots))
    return Bad(absl::StrCat("state from slot ", s.state_from));
  int row = 0;
  for (const Snapshot& snapshot : s.snapshots) {
    if (!IsIn(snapshot.row, row, s.num_rows) || !IsIn(snapshot.slot, 0, num_slots))
      return Bad(absl::StrCat("a snapshot of row ", snapshot.row, " in slot ", snapshot.slot));
    row = snapshot.row;
  }
  return absl::OkStatus();
}

absl::Status ReadSequence(const StepBounds& bounds, int rows_left, Reader* reader, PlanSequence* s) {
  s->num_rows = reader->Word();
  s->start = reader->Word();
  s->slot = reader->Word();
  s->state_from = reader->Word();
  const int num_pages = reader->Word(), num_snapshots = reader->Word();
  if (!IsIn(s->num_rows, 1, int64_t{rows_left} + 1))
    return Bad(absl::StrCat("a sequence of ", s->num_rows, " rows"));
  if (!IsIn(s->start, 0, int64_t{bounds.max_tokens} - s->num_rows + 1))
    return Bad(absl::StrCat("a sequence that starts at ", s->start));
  const auto pages = reader->Words(num_pages);
  s->pages.assign(pages.begin(), pages.end());
  const auto snapshots = reader->Words(2 * int64_t{num_snapshots});
  s->snapshots.clear();
  for (size_t i = 0; i < snapshots.size(); i += 2) s->snapshots.push_back({snapshots[i], snapshots[i + 1]});
  if (!reader->ok()) return Bad("it is cut short");
  if (absl::Status fine = CheckPages(*s, bounds.state); !fine.ok()) return fine;
  return CheckSlots(*s, bounds.state.num_slots);
}

}  // namespace

void EncodeStep(const StepPlan& plan, const std::vector<int32_t>& logit_rows, std::vector<int32_t>* words) {
  words->assign({plan.num_rows(), static_cast<int32_t>(plan.sequences.size()),
                 static_cast<int32_t>(logit_rows.size())});
  words->insert(words->end(), plan.token_ids.begin(), plan.token_ids.end());
  for (const PlanSequence& s : plan.sequences) {
    words->insert(words->end(),
                  {s.num_rows, s.start, s.slot, s.state_from, static_cast<int32_t>(s.pages.size()),
                   static_cast<int32_t>(s.snapshots.size())});
    words->insert(words->end(), s.pages.begin(), s.pages.end());
    for (const Snapshot& snapshot : s.snapshots) words->insert(words->end(), {snapshot.row, snapshot.slot});
  }
  words->insert(words->end(), logit_rows.begin(), logit_rows.end());
}

absl::Status DecodeStep(absl::Span<const int32_t> words, const StepBounds& bounds, StepMessage* message) {
  Reader reader(words);
  StepPlan& plan = message->plan;
  const int num_rows = reader.Word(), num_sequences = reader.Word(), num_logit_rows = reader.Word();
  if (!IsIn(num_rows, 1, int64_t{bounds.max_rows} + 1)) return Bad(absl::StrCat(num_rows, " rows"));
  if (!IsIn(num_sequences, 1, int64_t{num_rows} + 1)) return Bad(absl::StrCat(num_sequences, " sequences"));
  if (!IsIn(num_logit_rows, 0, int64_t{num_rows} + 1))
    return Bad(absl::StrCat(num_logit_rows, " logit rows"));
  const auto tokens = reader.Words(num_rows);
  for (const int32_t token : tokens) {
    if (!IsIn(token, 0, bounds.vocab_size)) return Bad(absl::StrCat("token ", token));
  }
  plan.token_ids.assign(tokens.begin(), tokens.end());
  plan.positions.clear();
  plan.sequences.resize(num_sequences);
  for (PlanSequence& s : plan.sequences) {
    s.first_row = static_cast<int>(plan.positions.size());
    if (absl::Status read = ReadSequence(bounds, num_rows - s.first_row, &reader, &s); !read.ok())
      return read;
    for (int i = 0; i < s.num_rows; ++i) plan.positions.push_back(s.start + i);
  }
  if (static_cast<int>(plan.positions.size()) != num_rows) return Bad("rows that are no sequence's");
  const auto logit_rows = reader.Words(num_logit_rows);
  if (!reader.at_end()) return Bad("its length is not what it says");
  int next = 0;
  for (const int32_t row : logit_rows) {
    if (!IsIn(row, next, num_rows)) return Bad(absl::StrCat("logits of row ", row));
    next = row + 1;
  }
  message->logit_rows.assign(logit_rows.begin(), logit_rows.end());
  return absl::OkStatus();
}

}  // namespace sessa
