// One run against the server, and the runs of a sweep: what main does between reading flags and writing
// reports.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/options.h"
#include "loadtest/progress.h"
#include "loadtest/record.h"
#include "loadtest/server_info.h"

namespace sessa::loadtest {

// The server of the options, once it has answered.
struct Target {
  ServerInfo info;
  std::vector<boost::asio::ip::tcp::endpoint> endpoints, metrics_endpoints;
};

// Asks the server for its model and completes *options by what it says (model, vocabulary; lengths scaled to
// --max_context). The error says why nothing can be sent: it is not there, has no such model, or requests
// would be longer than it takes.
absl::StatusOr<Target> Reach(Options* options);

// One run. `rate` 0: closed loop, or a trace's own times. An interrupt (SIGINT) ends it early and sets
// *interrupted. `progress` has been started.
Run RunOnce(const Options& options, const Target& target, double rate, Progress* progress, bool* interrupted);

// All runs that the options ask for.
std::vector<Run> RunAll(const Options& options, const Target& target, Progress* progress);

}  // namespace sessa::loadtest
