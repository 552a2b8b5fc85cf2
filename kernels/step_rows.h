// The rows of one step, in host memory: what a backend's operations work on between two BeginStep.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace sessa {

// After row `row` of the span's rows the state in its slot is copied to `slot`.
struct Snapshot {
  int row = 0;
  int32_t slot = -1;
};

// Rows of one sequence in a step: positions start, start + 1, ... at batch rows first_row, ...
struct RowSpan {
  int first_row = 0, num_rows = 0, start = 0;
  absl::Span<const int32_t> pages;  // page table, host memory: covers positions [0, start + num_rows)
  // Of layers with slots. The state after the rows is left in `slot`; the one before them is read from
  // `state_from`, and is zero where start == 0, whatever a slot holds.
  int32_t slot = -1, state_from = -1;
  absl::Span<const Snapshot> snapshots = {};  // rows ascend
};

// A block is some rows of one sequence; a wave is one block of each sequence, and the i-th wave holds the
// i-th blocks.
struct StepRows {
  std::vector<int32_t> token_ids, positions;  // [num_rows]
  std::vector<RowSpan> spans;                 // one for each sequence
  std::vector<std::vector<RowSpan>> waves;    // the spans cut into blocks; the last waves may be empty
  std::vector<int32_t> logit_rows;            // the rows of GatherLogitRows
  // Rotary positions: pair i of a head turns by position * inv_freq[i], in float32; cosines and sines are
  // multiplied with the scale. Empty: there is no rope. The memory stays as long as the step.
  absl::Span<const float> inv_freq;  // [head_dim / 2]
  float rope_scale = 1;
};

// Fills in the waves from the spans: blocks of at most max_block_rows rows, which are kTileTokens or a
// multiple; with kTileTokens no block crosses the border of a tile.
void CutIntoWaves(StepRows* rows, int max_block_rows);

}  // namespace sessa
