// What a leader could send: whatever is taken for a step can be run, which is what every index in it says,
// and says the same when it is sent on. The first bytes choose the bounds.
#include <cstring>
#include <vector>

#include "engine/step_message.h"
#include "tests/fuzz_check.h"
#include "tests/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sessa;
  constexpr size_t kBoundBytes = 8;
  FuzzInput input(data, size);
  StepBounds bounds;
  bounds.vocab_size = input.Between(1, 256);
  bounds.max_rows = input.Between(1, 64);
  bounds.max_tokens = input.Between(1, 256);
  bounds.state.page_size = 16 << input.Between(0, 2);
  bounds.state.num_ranks = 1 << input.Between(0, 3);
  bounds.state.num_pages = bounds.state.num_ranks * input.Between(1, 16);
  bounds.state.num_slots = input.Between(0, 8);
  if (size < kBoundBytes) return 0;
  std::vector<int32_t> words((size - kBoundBytes) / sizeof(int32_t));
  if (!words.empty()) std::memcpy(words.data(), data + kBoundBytes, words.size() * sizeof(int32_t));

  StepMessage message;
  if (!DecodeStep(words, bounds, &message).ok()) return 0;
  const StepPlan& plan = message.plan;
  const PageGeometry geometry(bounds.state);
  int row = 0;
  Check(plan.num_rows() >= 1 && plan.num_rows() <= bounds.max_rows);
  Check(plan.positions.size() == plan.token_ids.size());
  for (const int32_t token : plan.token_ids) Check(token >= 0 && token < bounds.vocab_size);
  for (const PlanSequence& s : plan.sequences) {
    Check(s.first_row == row && s.num_rows >= 1 && s.start >= 0 && s.start + s.num_rows <= bounds.max_tokens);
    for (int i = 0; i < s.num_rows; ++i) Check(plan.positions[row + i] == s.start + i);
    row += s.num_rows;
    Check(static_cast<int>(s.pages.size()) >= geometry.PagesFor(s.start + s.num_rows));
    for (const int32_t page : s.pages) Check(page >= 0 && page < bounds.state.num_pages);
    Check(s.slot >= -1 && s.slot < bounds.state.num_slots && s.state_from < bounds.state.num_slots);
    for (const Snapshot& snapshot : s.snapshots)
      Check(snapshot.row < s.num_rows && snapshot.slot >= 0 && snapshot.slot < bounds.state.num_slots);
  }
  Check(row == plan.num_rows());
  for (const int32_t logit_row : message.logit_rows) Check(logit_row >= 0 && logit_row < row);
  std::vector<int32_t> again;
  EncodeStep(plan, message.logit_rows, &again);
  Check(again == words);
  return 0;
}
