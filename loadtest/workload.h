// What is asked: a stream of conversations (most have one turn), made from the parts of a mix or from a
// trace. Conversation number i is the same in every run with the same seed, whatever the answers' timing. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/call.h"
#include "loadtest/client.h"
#include "loadtest/lengths.h"
#include "loadtest/trace.h"

namespace sessa::loadtest {

// One kind of request among others.
struct WorkloadPart {
  std::string kind;
  double weight = 1;      // its share of conversations, relative to the others'
  Lengths input, output;  // tokens of a conversation's first prompt, shared prefix included; of each answer
  int num_prefixes = 0;   // shared prefixes that prompts begin with
  int prefix_tokens = 0;
  double prefix_share = 1;  // of conversations that begin with one
  Lengths turns;            // requests of a conversation
  Lengths turn_input;       // new tokens of each later turn
  // The most tokens that a request of it can have, prompt and answer.
  int64_t MaxContext() const;
  WorkloadPart Scaled(double factor) const;
};

struct WorkloadOptions {
  std::vector<WorkloadPart> parts;  // at least one, unless there is a trace
  std::vector<TraceEntry> trace;    // its requests in order; then `parts` is not used
  int trace_block_tokens = kTraceBlockTokens;
  int vocab_size = 0;       // token ids are in [1, vocab_size)
  double cancel_share = 0;  // of requests, each cancelled after a random number of its tokens
  std::vector<Tenant> tenants;
  uint64_t seed = 0;
  // Runs with one seed differ by this number: lengths and order are the same, tokens are not, or a later run
  // would find the prompts of an earlier one in the server's prefix cache.
  int run = 0;
};

class Workload {
 public:
  // Requires: options as above.
  explicit Workload(WorkloadOptions options);

  // The first turn of the next conversation; null: the trace has ended.
  std::unique_ptr<Call> Next();
  // The turn after `ended`, whose answer is there; null: it was the last one, or went wrong.
  std::unique_ptr<Call> NextTurn(const Call& ended) const;
  // A request of one token, apart from the conversations: probe number i.
  std::unique_ptr<Call> Probe(int64_t i, int input_tokens) const;

 private:
  std::unique_ptr<Call> FromPart(int64_t conversation) const;
  std::unique_ptr<Call> FromTrace(int64_t conversation) const;
  // Outputs and cancelling of a call whose prompt is made.
  void Complete(int output_tokens, Random* random, Call* call) const;
  std::vector<int32_t> Tokens(int count, Random random) const;
  int DrawTenant(Random* random) const;

  const WorkloadOptions options_;
  double total_weight_ = 0, total_share_ = 0;
  int64_t next_ = 0;
};

}  // namespace sessa::loadtest
