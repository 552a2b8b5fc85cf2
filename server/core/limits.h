// The limits of the front ends, in one place: checked by ValidateRequest and the servers, listed at GET
// /v1/limits. Constant after start-up.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace sessa {

struct Limits {
  int64_t max_body_bytes = 4 << 20;  // refused with 413 before it is read
  int64_t max_header_bytes = 16 << 10;
  int64_t max_waiting_text_bytes = 16 << 20;  // long bodies that wait to be parsed, over all connections
  // Held for clients at once by REST and gRPC: bodies that are read, wait or are parsed, tokens that wait for
  // a reader, answers that are gathered and written (byte_budget.h). Half of a small machine's gigabyte, less
  // what parsing and the allocator add; four of the largest answers, or 32 of the largest bodies, at once.
  int64_t max_buffered_bytes = 256 << 20;
  int64_t max_answer_bytes = 64 << 20;  // of one answer, all choices, as JSON (answer_bound.h)
  int max_prompts = 64;                 // prompts in one request
  int max_messages = 1024;              // chat messages in one request
  int max_n = 16;                       // choices for each prompt
  int64_t max_total_tokens = 1 << 20;   // prompts * n * max_tokens
  int max_stop = 4;
  int max_stop_bytes = 256;  // of one stop string
  int max_stop_token_ids = 64;
  int max_logit_bias = 1024;
  int max_allowed_token_ids = 65536;
  int max_logprobs = 20;
  int max_json_depth = 32;  // tools come with JSON schemas
  int max_similarity_texts = 16;
  int max_similarity_samples = 256;  // continuations of each text
  int max_similarity_scores = 8192;  // texts * (texts - 1) * samples
  // Tokens that wait for the reader of one stream; beyond, it is cancelled. A stream of many choices gets
  // room for kMinQueuedEvents of each, since a step may bring one for every choice.
  int max_queued_events = 2048;
  static constexpr int kMinQueuedEvents = 64;
  int max_requests_per_tenant = 0;                     // running at once; 0: no limit of its own
  absl::Duration default_timeout = absl::Minutes(10);  // of a request that names none
  absl::Duration max_timeout = absl::Hours(1);
};

}  // namespace sessa
