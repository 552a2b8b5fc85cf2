// Clients of server_overhead.cc: each sends `num_streams` requests at once, reads all their tokens and
// returns when the last has ended. Requests: 16 prompt token ids, different for each stream; greedy; exactly
// num_tokens tokens.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"

namespace sessa {

struct ClientLoad {
  int num_streams = 1;
  int num_tokens = 1;  // of each
};

// The CPU time of the client's own thread; the error of the first stream that did not end as it should.
absl::StatusOr<absl::Duration> RunEngineClient(Engine* engine,
                                               const ClientLoad& load);          // no front end at all
absl::StatusOr<absl::Duration> RunGrpcClient(int port, const ClientLoad& load);  // one connection, one thread
absl::StatusOr<absl::Duration> RunRestClient(int port,
                                             const ClientLoad& load);  // a connection a stream, one thread

absl::Duration ThreadCpuTime();
absl::Duration ProcessCpuTime();

}  // namespace sessa
