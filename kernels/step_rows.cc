#include <algorithm>

#include "kernels/backend.h"

namespace sessa {

void CutIntoWaves(StepRows* rows, int max_block_rows) {
  for (auto& wave : rows->waves) wave.clear();  // keeps its memory
  for (const RowSpan& s : rows->spans) {
    for (int done = 0, wave = 0; done < s.num_rows; ++wave) {
      const int position = s.start + done;
      const int most =
          max_block_rows > kFeedbackTile ? max_block_rows : kFeedbackTile - position % kFeedbackTile;
      const int n = std::min(s.num_rows - done, most);
      if (wave == static_cast<int>(rows->waves.size())) rows->waves.emplace_back();
      rows->waves[wave].push_back({s.first_row + done, n, position, s.pages});
      done += n;
    }
  }
}

void Backend::AttendAndFeedbackRead(const AttendCall& attend, const FeedbackReadCall& read,
                                    const LayerState& state) {
  Attend(attend, state);
  FeedbackRead(read, state);
}

}  // namespace sessa
