// One step of the engine: a ragged batch of token rows. Built by the Scheduler, constant once built, the same
// for all ranks. Prefill, chunked prefill, decode, cache hits and recompute after preemption all look alike
// here: each sequence brings the rows by which its cache is behind its tokens, drafts among them.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "kernels/step_rows.h"

namespace sessa {

struct PlanSequence {
  uint64_t sequence_id = 0;
  int first_row = 0;           // of this sequence's rows in the batch; rows of one sequence are adjacent
  int num_rows = 0;            // >= 1
  int start = 0;               // position of the first row = tokens whose state is in the cache already
  std::vector<int32_t> pages;  // page table: physical pages that cover positions [0, start + num_rows)
  // Recurrent state: one tensor a sequence and not a row a token, so it lies in slots. A step's slots never
  // collide: none that it writes is another's, and none that it reads, but for a sequence's own, is written.
  int32_t slot = -1;        // the sequence's own, which holds its state once the step is done; -1: the model
                            // keeps none
  int32_t state_from = -1;  // which holds it before the first row: `slot`, or a snapshot to copy; -1 where
                            // start is 0: the state is zero, whatever `slot` holds
  std::vector<Snapshot> snapshots;  // by row
  bool sample = false;              // sample the successor of the newest token, and of each draft behind it
  int num_drafts = 0;               // the last rows are guesses of what the rows before them will give
  int first_logprob_row = -1;  // >= 0: rows from this one (within the sequence) want the log-probability of
                               // the prompt token that follows them (prompt_logprobs)
  // Valid until the next call of the Scheduler that is not const: who executes the plan reads them before.
  // tokens: prompt, generated so far, drafts; SampledId where the plan has it.
  const SamplingParams* sampling = nullptr;
  const std::vector<int32_t>* tokens = nullptr;
  int prompt_size = 0;
  uint64_t seed = 0;  // of this choice
};

// Stands for a token that is not known yet: the index-th of those that the step before samples.
constexpr int32_t SampledId(int index) { return -1 - index; }

struct StepPlan {
  std::vector<int32_t> token_ids;  // [num_rows]; below 0: SampledId
  std::vector<int32_t> positions;  // [num_rows]
  std::vector<PlanSequence> sequences;
  // Tokens of state that need not be read, as decodes begin with the same pages and one read serves them all.
  int64_t num_shared_reads = 0;
  int num_rows() const { return static_cast<int>(token_ids.size()); }
};

struct SampledToken {
  int32_t token = -1;      // -1: the logits are not numbers
  TokenLogprobs logprobs;  // with num_logprobs >= 0
};

// What a step gave, one entry for each sequence of the plan.
struct SequenceResult {
  // Where it was to be sampled: the successor of the newest token and, as far as each was the draft that
  // stands there, the next one's. So none was made of a wrong draft, and there is always one.
  std::vector<SampledToken> tokens;
  std::vector<TokenLogprobs>
      prompt_logprobs;  // one for each row from first_logprob_row whose successor is in the prompt
};

}  // namespace sessa
