// One choice of one request on its way through the engine: its tokens, how many of them have their state in
// the cache, and what holds it. Prefill, decode, a cache hit and recompute after preemption are one rule:
// num_computed catches up with tokens.size(). Owned by the Scheduler; what it holds of the state cache is
// written by StateLedger alone.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "engine/ngram_drafter.h"
#include "engine/request.h"

namespace sessa {

struct Tenant;

enum class SequenceStatus {
  kBlocked,  // a sibling computes the prompt first; no tokens yet
  kWaiting,  // in the waiting queue; holds no pages
  kRunning,  // holds pages; may have rows in each step
};

// What a sequence holds of the state cache; nothing unless it runs.
class HeldState {
 public:
  const std::vector<int32_t>& pages() const { return pages_; }  // by logical index
  int num_pages() const { return static_cast<int>(pages_.size()); }
  int num_computed() const { return num_computed_; }  // tokens [0, num_computed) have their state there
  int num_registered() const {
    return num_registered_;
  }  // pages [0, num_registered) are in the prefix index
     // and must not be written

 private:
  friend class StateLedger;
  struct SnapshotAt {
    int num_tokens = 0;  // whose state it is
    int32_t slot = -1;
    bool rolling = false;  // of the answer: the next one replaces it
  };

  std::vector<int32_t> pages_;
  int num_computed_ = 0, num_registered_ = 0;
  // Of models that keep recurrent state.
  int32_t slot_ = -1;        // its own
  int32_t state_from_ = -1;  // has the state of num_computed tokens, if that is above 0: its own, or the
                             // snapshot that it starts from, which it pins
  int branch_ = 0;           // tokens: here its prompt leaves what is indexed, and no snapshot is there yet
  std::vector<SnapshotAt> taken_;  // by the steps under way, in their order
  SnapshotAt rolling_;             // the last such one; slot -1: there is none
};

struct Sequence {
  uint64_t id = 0;  // grows with arrival, then with the choice: the order of age
  RequestId request_id = 0;
  int choice = 0;
  int priority = 0;  // lower first, among the tenant's own
  Tenant* tenant = nullptr;
  const SamplingParams* sampling = nullptr;
  uint64_t seed = 0;
  absl::Time arrival;

  SequenceStatus status = SequenceStatus::kBlocked;
  // Prompt and generated so far; while a step is under way also its drafts or, once the step behind it is
  // planned, what stands for the token that it will sample (SampledId).
  std::vector<int32_t> tokens;
  int prompt_size = 0;
  int max_size = 0;      // tokens.size() never grows beyond: prompt + max_tokens, max_model_len
  int max_computed = 0;  // the most that num_computed ever was: rows below it are recomputed
  HeldState held;
  // Its next row cannot be planned before its newest token is known, or its results are too large to come
  // beside the next step.
  bool needs_its_tokens = false;
  int max_drafts = 0;  // a step; 0: no speculation
  NgramDrafter drafter;

  int num_preemptions = 0;
  bool resumed = false;   // its request had rows before: goes ahead of new ones
  int planned_rows = 0;   // in the plan being built or executed
  int num_drafts = 0;     // of the last of these rows
  int place = 0;          // among the running ones: who gives way to whom
  int64_t queue_key = 0;  // WaitingQueue's

  int num_tokens() const { return static_cast<int>(tokens.size()); }
  int num_remaining() const { return num_tokens() - held.num_computed(); }
  int num_generated() const { return num_tokens() - prompt_size; }
};

}  // namespace sessa
