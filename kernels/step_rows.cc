#include "kernels/step_rows.h"

#include <algorithm>

#include "kernels/state.h"

namespace sessa {

void CutIntoWaves(StepRows* rows, int max_block_rows) {
  for (auto& wave : rows->waves) wave.clear();  // keeps its memory
  for (const RowSpan& s : rows->spans) {
    for (int done = 0, wave = 0; done < s.num_rows; ++wave) {
      const int position = s.start + done;
      const int most = max_block_rows > kTileTokens ? max_block_rows : kTileTokens - position % kTileTokens;
      const int n = std::min(s.num_rows - done, most);
      if (wave == static_cast<int>(rows->waves.size())) rows->waves.emplace_back();
      rows->waves[wave].push_back({s.first_row + done, n, position, s.pages});
      done += n;
    }
  }
}

}  // namespace sessa
