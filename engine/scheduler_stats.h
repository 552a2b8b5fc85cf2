// What the Scheduler counts; EngineStats is this and what the engine adds.
#pragma once

#include <cstdint>

namespace sessa {

// Counters since start and gauges of now.
struct SchedulerStats {
  int num_running = 0;  // requests with at least one sequence that holds pages
  int num_waiting = 0;  // the other live requests
  int num_running_sequences = 0;
  int num_startable = 0;  // sequences that could start now; 0 after one that did not fit, while any waits
  int64_t waiting_tokens = 0;  // their prompts
  int num_pages = 0, num_used_pages = 0;
  int num_slots = 0, num_used_slots = 0, num_snapshots = 0;  // of recurrent state; used: by sequences
  int64_t num_preemptions = 0, num_recomputed_tokens = 0;
  int64_t prefix_cache_queries = 0, prefix_cache_hits = 0;  // tokens; each request's first look-up
  int64_t prompt_tokens = 0, generation_tokens = 0;
  int64_t num_drafts = 0;  // decodes of a step that brought some
  int64_t draft_tokens = 0, accepted_draft_tokens = 0;
  int64_t num_shared_reads = 0;  // tokens of state that one read for several sequences saved
  int64_t num_steps = 0;
};

}  // namespace sessa
