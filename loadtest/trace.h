// Traces in the Mooncake format (JSON lines): {"timestamp": ms, "input_length": tokens, "output_length":
// tokens, "hash_ids": [id of each block of 512 tokens of the prompt]}. Equal ids stand for equal tokens.
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sessa::loadtest {

inline constexpr int kTraceBlockTokens = 512;

struct TraceEntry {
  double at = 0;  // seconds since the trace's first kept request
  int input_length = 0, output_length = 0;
  std::vector<int64_t> hash_ids;  // ceil(input_length / 512)
};

struct TraceOptions {
  double offset_seconds = 0;  // skipped at its start
  double time_scale = 1;      // 2: twice as long, half the rate
  int64_t max_requests = 0;   // 0: all
};

// The entries of a trace by time. INVALID_ARGUMENT names the line that is wrong, and why; a trace without a
// request is wrong too.
absl::StatusOr<std::vector<TraceEntry>> ReadTrace(std::istream* lines, const TraceOptions& options);

// Lengths and blocks times `factor`: what an entry shares with another stays shared. The block of
// kTraceBlockTokens becomes *block_tokens.
void ScaleTrace(double factor, std::vector<TraceEntry>* trace, int* block_tokens);

}  // namespace sessa::loadtest
