// How sequences share the steps; EngineOptions are these and what the engine itself needs.
#pragma once

#include <memory>

#include "absl/time/time.h"

namespace sessa {

class CacheObserver;

// The engine takes zeros for defaults (engine_options.h); the Scheduler wants every value.
struct SchedulerOptions {
  int max_num_seqs = 0;     // sequences in one step; 0: 256, or as many as leave slots for snapshots
  int max_step_tokens = 0;  // new tokens in one step; 0: 1024, CUDA: 2048
  int max_model_len = 0;    // prompt + generated; 0: max_position_embeddings, or what the cache holds
  // Prefill chunks are cut to keep steps near this, or three times this where nobody streams;
  // InfiniteDuration: only max_step_tokens counts.
  absl::Duration target_step_time = absl::Milliseconds(100);
  bool enable_prefix_caching = true;
  int max_preemptions = 4;  // of one sequence; 0: none ever, its pages are reserved when it starts
  // Drafts of a sequence in a step, where its request does not say: at most kMaxDrafts; 0: none. The engine
  // takes -1 for as many as are of use here: none where state is recurrent or where the batch changes bits
  // (CUDA without batch_invariant).
  int num_speculative_tokens = 0;
  // Told of pages that are found by prefix, but where state is recurrent: there a page alone is no hit. Null:
  // nobody.
  std::shared_ptr<CacheObserver> cache_observer = nullptr;
};

}  // namespace sessa
